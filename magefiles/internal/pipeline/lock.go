package pipeline

import (
	"errors"
	"os"
	"syscall"
)

// Lock keeps other runs away from a folder, which it makes if need be, until
// the file that it returns is closed. It does not wait for them.
func Lock(folder string) (*os.File, error) {
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
	return f, nil
}

// lockedError means that another run works in the folder.
type lockedError struct{ folder string }

func (e *lockedError) Error() string { return "another run works in " + Rel(e.folder) }

// Hint says what the user can do.
func (e *lockedError) Hint() string {
	return "wait until it has ended, or set FOTHER_WORK to another folder"
}
