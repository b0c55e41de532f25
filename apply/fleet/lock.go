package fleet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another pass is under way with the same state folder.
var ErrLocked = errors.New("another pull is under way")

// PrivateError means that others than the caller can write a state folder.
type PrivateError struct{ Path, Why string }

func (e *PrivateError) Error() string {
	return fmt.Sprintf("state folder %s: %s: want one that only its user can write", e.Path, e.Why)
}

// lock makes the state folder if need be and takes the lock in it, which ends
// with the process that holds it.
func lock(state string) (unlock func(), err error) {
	if state == "" {
		return nil, errors.New("no state folder is named")
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	if err := private(state); err != nil {
		return nil, err
	}
	path := filepath.Join(state, "pull.lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, fmt.Errorf("state folder %s: %w", state, err)
	}
	return func() {
		// A child that was forked and has not executed yet holds the file too.
		_ = unix.Flock(fd, unix.LOCK_UN)
		f.Close()
	}, nil
}

// private reports who else can write in a folder.
func private(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Uid != uint32(os.Geteuid()):
		return &PrivateError{path, fmt.Sprintf("it belongs to user %d", st.Uid)}
	case st.Mode&0o022 != 0:
		return &PrivateError{path, fmt.Sprintf("its mode is %04o", st.Mode&0o7777)}
	}
	return nil
}
