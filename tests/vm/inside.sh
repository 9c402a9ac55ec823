# Second program of a guest, on its real root: mount what Linux programs expect, run the command, power off.
# It is process 1, or a service where that is systemd, which has mounted most of it by then.
busybox=/run/guest/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null >/dev/console 2>&1
. /run/guest/settings

mounted() {
	$busybox grep -q " $2 " /proc/mounts && return
	$busybox mkdir -p "$2" 2>/dev/null
	$busybox mount -t "$1" "$1" "$2" || echo "gospan-vm: can't mount $1 at $2"
}
mounted devpts /dev/pts
mounted tmpfs /dev/shm
mounted tracefs /sys/kernel/tracing
mounted debugfs /sys/kernel/debug
mounted bpf /sys/fs/bpf
mounted cgroup2 /sys/fs/cgroup
$busybox hostname "$hostname"
$busybox ifconfig lo 127.0.0.1 up
[ ! -e /sys/class/net/eth0 ] || $busybox ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up

$busybox sh /run/guest/command >"$results/output" 2>&1
status=$?
# Renamed when it is complete, so that the host never sees half of it.
echo "$status" >"$results/status.new"
$busybox mv "$results/status.new" "$results/status"
$busybox sync
echo "gospan-vm: exit status $status"
$busybox poweroff -f
$busybox sleep 60
