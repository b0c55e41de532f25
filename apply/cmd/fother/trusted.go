package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// unsafeFileError means that others than root and the caller can change a
// file.
type unsafeFileError struct{ path, why string }

func (e *unsafeFileError) Error() string {
	return fmt.Sprintf("%s: not taken: %s", e.path, e.why)
}

// trust answers whether only root and the caller can change what a path leads
// to. It remembers folders that it has checked, which is safe as only root and
// the caller can change these.
type trust struct{ dirs map[string]bool }

func newTrust() *trust { return &trust{dirs: make(map[string]bool)} }

// maxLinks bounds the symbolic links of one path, as Linux does.
const maxLinks = 40

// resolve follows path as the kernel would and returns it without symbolic
// links, with what it leads to. Every folder and every link on the way has to
// belong to root or the caller, and no folder may be writable by others unless
// it is sticky: in those, such as /tmp, others cannot replace an entry that is
// not theirs. A link may lead anywhere where the same holds.
func (t *trust) resolve(path string) (string, *unix.Stat_t, error) {
	rest, err := absolute(path)
	if err != nil {
		return "", nil, err
	}
	real, st, links := "/", &unix.Stat_t{}, 0
	for {
		if err := t.folder(path, real); err != nil {
			return "", nil, err
		}
		var name string
		var slash bool
		if name, rest, slash = strings.Cut(rest, "/"); slash && rest == "" {
			rest = "." // it has to be a folder
		}
		switch name {
		case "", ".":
		case "..":
			real = filepath.Dir(real)
		default:
			next := filepath.Join(real, name)
			target, err := t.entry(path, next, st)
			if err != nil {
				return "", nil, err
			}
			if target == "" {
				if rest != "" || st.Mode&unix.S_IFMT == unix.S_IFDIR {
					real = next
					break
				}
				return next, st, nil
			}
			if links++; links > maxLinks {
				return "", nil, &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			if filepath.IsAbs(target) {
				real = "/"
			}
			if rest != "" {
				target += "/" + rest
			}
			rest = target
		}
		if rest == "" {
			return real, st, t.folder(path, real)
		}
	}
}

// absolute returns a path with the current folder before it, if it has none of
// its own. Nothing is taken out of it: what ".." leads to after a link only the
// link says.
func absolute(path string) (string, error) {
	if path == "" {
		return "", &os.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := os.Getwd()
	return wd + "/" + path, err
}

// entry reads the status of next, a part of path, into st, and returns where
// it leads to if it is a symbolic link.
func (t *trust) entry(path, next string, st *unix.Stat_t) (string, error) {
	if err := unix.Lstat(next, st); err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	if why := othersOwn(st); why != "" {
		return "", &unsafeFileError{path, fmt.Sprintf("the link %s: %s", next, why)}
	}
	target, err := os.Readlink(next)
	if err == nil && target == "" {
		err = &os.PathError{Op: "readlink", Path: next, Err: unix.ENOENT}
	}
	return target, err
}

// folder checks dir, a part of path that has no links.
func (t *trust) folder(path, dir string) error {
	if t.dirs[dir] {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	if why := othersOwn(&st); why != "" {
		return &unsafeFileError{path, dir + ": " + why}
	}
	if why := othersWrite(&st); why != "" && st.Mode&unix.S_ISVTX == 0 {
		return &unsafeFileError{path, dir + ": " + why}
	}
	t.dirs[dir] = true
	return nil
}

// open opens a regular file. Nothing else in its place is opened at all: a
// device may act on that, and a FIFO wait.
func (t *trust) open(path string) (*os.File, int64, error) {
	real, st, err := t.resolve(path)
	if err != nil {
		return nil, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, fmt.Errorf("%s: not a regular file", path)
	}
	if why := othersWrite(st); why != "" {
		return nil, 0, &unsafeFileError{path, why}
	}
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var now unix.Stat_t
	if err = unix.Fstat(fd, &now); err == nil && (now.Ino != st.Ino || now.Dev != st.Dev || now.Mode != st.Mode || now.Uid != st.Uid) {
		err = errors.New("replaced while it was read")
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return f, now.Size, nil
}

// read reads a regular file of at most limit bytes.
func (t *trust) read(path string, limit int64) ([]byte, error) {
	f, size, err := t.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, size, limit)
}

// readAll reads the rest of a file of size bytes.
func readAll(f *os.File, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", f.Name(), size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return b, nil
}

// othersOwn says who else owns a file, and so may change its mode; "" if
// nobody.
func othersOwn(st *unix.Stat_t) string {
	if st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
		return fmt.Sprintf("it belongs to user %d", st.Uid)
	}
	return ""
}

// othersWrite says who else can change a file, "" if nobody. A group of one,
// as many systems give each user, is the user; root has none: what root's group
// can write may be a mask, under which an access control list names others.
func othersWrite(st *unix.Stat_t) string {
	if why := othersOwn(st); why != "" {
		return why
	}
	switch {
	case st.Mode&0o002 != 0:
		return "everybody can write it"
	case st.Mode&0o020 != 0 && !ownGroup(st.Gid, uint32(os.Geteuid()), uint32(os.Getegid())):
		return fmt.Sprintf("group %d can write it", st.Gid)
	}
	return ""
}

// ownGroup reports whether a group is that of one user alone: it has the user's
// number, as many systems give each user one, and egid is the user's group.
func ownGroup(gid, uid, egid uint32) bool { return uid != 0 && gid == uid && gid == egid }
