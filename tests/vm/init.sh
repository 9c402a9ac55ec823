#!/busybox sh
# First program of a guest, in the initramfs: build the root file system out of what the host shares, and go there.
# /guest/settings (written by guest.py) has: lower, visible, writable, results, started, hostname, init.
/busybox mkdir -p /bin && /busybox --install -s /bin
export PATH=/bin

die() {
	echo "gospan-vm: $*" >/dev/console
	poweroff -f
	sleep 60
}

mkdir -p /proc /sys /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
. /guest/settings
# Without a real-time clock a guest would begin in 1970.
[ "$(date +%s)" -ge "$started" ] || date -s "@$started" >/dev/null

for module in /guest/modules/*; do
	[ -e "$module" ] || continue
	insmod "$module" || die "can't load $module"
done

mkdir -p /host /layers /root
mount -t virtiofs -o ro host /host || die "can't mount the host's files"
mount -t tmpfs -o mode=755 tmpfs /layers

# overlay LOWER TARGET: files of the host that look writable; what is written is gone with the guest.
layer=0
overlay() {
	layer=$((layer + 1))
	mkdir -p "/layers/$layer/upper" "/layers/$layer/work" "$2"
	mount -t overlay -o "lowerdir=$1,upperdir=/layers/$layer/upper,workdir=/layers/$layer/work" overlay "$2" ||
		die "can't mount an overlay of $1"
}
overlay "/host$lower" /root
for path in $visible; do
	overlay "/host$path" "/root$path"
done
mkdir -p /root/run
mount -t tmpfs -o mode=755 tmpfs /root/run
index=0
for path in $writable; do
	mkdir -p "/root$path"
	mount -t virtiofs "share$index" "/root$path" || die "can't mount $path"
	index=$((index + 1))
done

for mount in proc sys dev; do
	mkdir -p "/root/$mount"
	mount --move "/$mount" "/root/$mount"
done
mkdir /root/run/guest
cp /busybox /guest/settings /guest/command /guest/inside.sh /root/run/guest/
if [ "$init" ]; then
	units=/root/run/systemd/system
	mkdir -p "$units/multi-user.target.wants"
	cp /guest/guest.service "$units/"
	chmod 644 "$units/guest.service"
	ln -s ../guest.service "$units/multi-user.target.wants/"
	exec switch_root /root "$init"
fi
exec switch_root /root /run/guest/busybox sh /run/guest/inside.sh
