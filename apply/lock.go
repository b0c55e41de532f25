package apply

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockWait is how long a run waits for another one on the same process.
const lockWait = 5 * time.Second

// lockProcess keeps other runs of the tool away for up to wait, then fails with
// [ErrLocked]. The lock is a flock(2) on /proc/PID/mem: it needs no folder that
// can be written, leaves no file, and ends with the tool. The kernel lets only
// those open that file who may trace the process (ptrace(2),
// PTRACE_MODE_ATTACH_FSCREDS), so nobody else can hold it; /proc/PID itself
// anyone may open and lock. Two exceptions: whoever starts a set-user-ID
// program can open the file before and keep that program locked, and tools that
// see different mounts of /proc (another container) see different locks.
//
// Errors: [ErrGone], [ErrPermission], [ErrLocked].
func lockProcess(pid int, wait time.Duration) (*os.File, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, procError(err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(deadline) || errors.Is(err, unix.EINTR) {
			continue
		}
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock process %d: %w", pid, err)
	}
}

// unlock lets go of a lock, also if a child that was forked and has not
// executed yet has the file too.
func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
	f.Close()
}
