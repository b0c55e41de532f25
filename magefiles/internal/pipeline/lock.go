package pipeline

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Lock keeps other runs away from a folder, which it makes if need be, until
// what it returns is closed. It does not wait for them.
func Lock(folder string) (io.Closer, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &lockedError{folder}
		}
		return nil, &os.PathError{Op: "lock", Path: folder, Err: err}
	}
	return locked{f}, nil
}

type locked struct{ *os.File }

// Close lets go at once: a process that is just being started may have the file
// open for a moment more.
func (l locked) Close() error {
	return errors.Join(syscall.Flock(int(l.Fd()), syscall.LOCK_UN), l.File.Close())
}

// lockedError means that another run works in the folder.
type lockedError struct{ folder string }

func (e *lockedError) Error() string { return "another run works in " + Rel(e.folder) }

// Hint says what the user can do.
func (e *lockedError) Hint() string {
	return "wait until it has ended, or set FOTHER_WORK to another folder"
}
