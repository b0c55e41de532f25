// Package machine runs a job on an emulated aarch64 Linux machine, so that the
// real kernel's ptrace, /proc/PID/mem, BTI and PAC can be tested on any host.
//
// [Run] packs a folder as /job into an initramfs, boots Debian's arm64 "cloud"
// kernel under qemu-system-aarch64 (full system emulation), runs /job/run.sh
// as root and returns its exit status. The machine has busybox, the shared
// libraries of glibc and GCC and nothing else; no network and no disk. It is up in some ten
// seconds.
//
// Kernel and base come from Debian's archive by apt, once, and are kept in the
// user's cache; a newer kernel comes when that folder is removed. Debian has no kernel
// with pages of 64 KiB: it is built from Debian's source of the kernel.
package machine
