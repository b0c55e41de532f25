package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack"
)

// maxPatch bounds the size of a patch file, in bytes.
const maxPatch = 1 << 30

// unsafeFileError means that others than root and the caller can change a
// file.
type unsafeFileError struct{ path, why string }

func (e *unsafeFileError) Error() string {
	return fmt.Sprintf("%s: not taken: %s", e.path, e.why)
}

// loadPatches reads patch files, and all *.kpatch files of folders.
func loadPatches(args []string) ([]*kpack.Patch, error) {
	var patches []*kpack.Patch
	for _, arg := range args {
		paths := []string{arg}
		if info, err := os.Stat(arg); err == nil && info.IsDir() {
			// Not Glob: the folder's own name may hold its special characters.
			entries, err := os.ReadDir(arg)
			if err != nil {
				return nil, err
			}
			paths = nil
			for _, e := range entries {
				if strings.HasSuffix(e.Name(), ".kpatch") {
					paths = append(paths, filepath.Join(arg, e.Name()))
				}
			}
			if len(paths) == 0 {
				return nil, fmt.Errorf("%s: holds no .kpatch files", arg)
			}
		}
		for _, path := range paths {
			p, err := loadPatch(path)
			if err != nil {
				return nil, err
			}
			patches = append(patches, p)
		}
	}
	return patches, nil
}

func loadPatch(path string) (*kpack.Patch, error) {
	data, err := readTrusted(path)
	if err != nil {
		return nil, err
	}
	p, err := kpack.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// readTrusted reads a regular file that only root and the caller can change,
// on a path of which the same holds.
func readTrusted(path string) ([]byte, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a FIFO in the file's place must not hold us.
	fd, err := unix.Open(real, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), real)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if st.Size > maxPatch {
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", path, st.Size, maxPatch)
	}
	if why := othersWrite(&st); why != "" {
		return nil, &unsafeFileError{path, why}
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		if err := unix.Stat(dir, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		// In a sticky folder such as /tmp others cannot replace the entry.
		if why := othersWrite(&st); why != "" && st.Mode&unix.S_ISVTX == 0 {
			return nil, &unsafeFileError{path, dir + " " + why}
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return io.ReadAll(io.LimitReader(f, maxPatch+1))
}

// othersWrite says who else can change a file, "" if nobody. A group of one,
// as many systems give each user, is the user.
func othersWrite(st *unix.Stat_t) string {
	uid := uint32(os.Geteuid())
	switch {
	case st.Uid != 0 && st.Uid != uid:
		return fmt.Sprintf("it belongs to user %d", st.Uid)
	case st.Mode&0o002 != 0:
		return "everybody can write it"
	case st.Mode&0o020 != 0 && st.Gid != 0 && st.Gid != uid:
		return fmt.Sprintf("group %d can write it", st.Gid)
	}
	return ""
}
