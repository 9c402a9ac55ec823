#!/bin/sh
# Boot systemd on a copy of a Debian, in namespaces that are new: namespace.sh LOWER SCRATCH RESULTS [VISIBLE...]
# What is written to LOWER goes to SCRATCH; RESULTS, which the system may write to, holds the script `command`;
# VISIBLE are directories that it sees at their own places. Ends when the system powers off.
set -e
lower=$1 scratch=$2 results=$3
shift 3

mount --make-rprivate /
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"
cd "$scratch/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tracefs tracefs sys/kernel/tracing
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
for path; do
	mkdir -p "./$path"
	mount --bind "$path" "./$path"
	mount -o remount,bind,ro "./$path"
done
mkdir -p "./$results" run/systemd/system/multi-user.target.wants
mount --bind "$results" "./$results"
cat >run/systemd/system/guest.service <<-UNIT
	[Unit]
	After=multi-user.target
	SuccessAction=exit-force
	FailureAction=exit-force
	[Service]
	Type=oneshot
	ExecStart=/bin/sh -c '/bin/sh $results/command >$results/output 2>&1; echo \$\$? >$results/status'
UNIT
ln -s ../guest.service run/systemd/system/multi-user.target.wants/
mkdir -p former
pivot_root . former
umount -l former
# As nspawn does it: what a unit's own mounts are made from, its credentials among them, has to be shared.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --log-target=journal
