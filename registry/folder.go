package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// folder is a store in a local folder.
type folder struct{ dir string }

// lockPoll is how often a publisher that waits tries again.
const lockPoll = 20 * time.Millisecond

const lockFile = ".lock"

func (f folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

// lock takes flock(2) on a file in the folder. The kernel releases it when the
// publisher dies.
func (f folder) lock(ctx context.Context) (func(), error) {
	file, err := os.OpenFile(f.path(lockFile), os.O_RDONLY|os.O_CREATE, 0o644)
	if err != nil {
		return nil, &Error{ErrUnreachable, lockFile, err}
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { unlock(file) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			file.Close()
			return nil, &Error{ErrUnreachable, lockFile, err}
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fail(ErrUnreachable, lockFile, "another publisher holds the registry: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}

// unlock releases a lock at once: a child that was forked and has not executed
// yet has a copy of the file, which closing it does not end.
func unlock(file *os.File) {
	_ = unix.Flock(int(file.Fd()), unix.LOCK_UN)
	file.Close()
}

func (f folder) read(ctx context.Context, name string, max int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	data, err := readRegular(f.path(name), max)
	return data, fileError(name, err)
}

// fileError gives an error of the file system a class.
func fileError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return &Error{ErrNotFound, name, err}
	case errors.Is(err, ErrTooLarge):
		return &Error{ErrTooLarge, name, err}
	}
	return &Error{ErrUnreachable, name, err}
}

// readRegular reads a regular file of at most max bytes. It does not wait for
// the other end of a FIFO.
func readRegular(path string, max int64) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > max {
		return nil, fail(ErrTooLarge, path, "%d bytes: want at most %d", info.Size(), max)
	}
	buf := bytes.NewBuffer(make([]byte, 0, info.Size()+bytes.MinRead))
	if n, err := io.Copy(buf, io.LimitReader(file, max+1)); err != nil {
		return nil, err
	} else if n > max {
		return nil, fail(ErrTooLarge, path, "want at most %d bytes", max)
	}
	return buf.Bytes(), nil
}

// write leaves what is there if it is the same.
func (f folder) write(ctx context.Context, name string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := f.path(name)
	if old, err := readRegular(path, int64(len(data))); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := f.makeDir(filepath.Dir(path)); err != nil {
		return fileError(name, err)
	}
	return fileError(name, writeAtomic(filepath.Dir(path), path, data, 0o644, true))
}

// create writes over what a publisher that died has left: with the lock held
// there is no other one.
func (f folder) create(ctx context.Context, name string, data []byte) error {
	return f.write(ctx, name, data)
}

// commit compares while it holds the lock, and otherwise needs nothing more
// than write does: each write was durable when it returned, so that the files
// of a new state are there when this one names them.
func (f folder) commit(ctx context.Context, name string, old, data []byte) error {
	now, err := f.read(ctx, name, maxCommitted)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if !bytes.Equal(now, old) && !bytes.Equal(now, data) {
		return &Error{ErrRaced, name, nil}
	}
	return f.write(ctx, name, data)
}

// makeDir makes a folder and those above it, up to the registry's own, and
// their names durable. All may read them, whatever the umask, as they may the
// files.
func (f folder) makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if dir != f.dir {
		if err := f.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, info.Mode()|0o755); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeAtomic leaves a file whole or as it was; if durable, also over a loss
// of power. It is made in the folder temp, on the same file system.
func writeAtomic(temp, path string, data []byte, mode fs.FileMode, durable bool) (err error) {
	tmp, err := os.CreateTemp(temp, ".tmp-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode))
	if durable {
		err = errors.Join(err, tmp.Sync())
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(path))
}
