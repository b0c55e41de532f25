#!/bin/busybox sh
# The first process of the machine: makes it a place to work in, runs the job
# and says on the console how it ended.
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s /bin
export PATH=/usr/bin:/usr/sbin HOME=/root TERM=dumb
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
hostname aarch64
ip link set lo up
for m in virtio_ring virtio virtio_mmio virtio_console; do
	if [ -f /usr/lib/machine/$m.ko ]; then insmod /usr/lib/machine/$m.ko; fi
	if [ -f /usr/lib/machine/$m.ko.xz ]; then xz -dc /usr/lib/machine/$m.ko.xz >/tmp/m.ko && insmod /tmp/m.ko; fi
done
if [ -f /run/tmpdir ]; then
	read -r TMPDIR </run/tmpdir
	export TMPDIR
	mkdir -p $TMPDIR
fi
cd /job
/bin/sh ./run.sh
status=$?
read -r token </run/token
echo
echo "job-$token: $status"
sync
poweroff -f
