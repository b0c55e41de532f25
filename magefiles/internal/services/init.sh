# The beginning of the box, as its first process: enters a control group and
# makes the root that systemd boots from.
#
#   sh -e init.sh GROUP            moves to the control group, gets a namespace of it
#   sh -e init.sh root BASE EXTRA  an overlay over BASE, with the files of EXTRA
case $1 in
root) ;;
*)
	echo $$ >"$1/cgroup.procs"
	shift
	exec unshare --cgroup sh -e "$INIT" root "$@"
	;;
esac
base=$2 extra=$3
mount --make-rprivate /
mount -t tmpfs -o mode=755 box /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$base,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
cd /mnt/root
cp -R --preserve=mode "$extra/." .
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
for d in null zero full random urandom tty; do
	: >dev/$d
	mount --bind /dev/$d dev/$d
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
ip link set lo up
mkdir run/old
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old
exec env -i container=fother PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --show-status=no --log-target=console --log-level=notice
