package machine

import (
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

// File types in the mode of a cpio entry, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

// archive writes a cpio archive in the "newc" form that the kernel takes for
// an initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
// All entries belong to root. The first error stays.
type archive struct {
	w     io.Writer
	size  int64 // bytes written
	inode uint32
	dirs  map[string]bool
	err   error
}

func newArchive(w io.Writer) *archive {
	return &archive{w: w, dirs: map[string]bool{}}
}

// dir adds a folder, unless it is there.
func (a *archive) dir(name string) {
	if !a.dirs[name] {
		a.dirs[name] = true
		a.entry(name, typeDir|0o755, 0, nil)
	}
}

func (a *archive) link(name, target string) {
	a.bytes(name, typeLink|0o777, []byte(target))
}

func (a *archive) bytes(name string, mode uint32, data []byte) {
	a.entry(name, mode, int64(len(data)), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// entry adds one entry with size bytes of content, which write writes.
func (a *archive) entry(name string, mode uint32, size int64, write func(io.Writer) error) {
	if size > math.MaxUint32 && a.err == nil {
		a.err = fmt.Errorf("%s: %d bytes are too many for an initramfs", name, size)
	}
	if a.err != nil {
		return
	}
	a.inode++
	_, a.err = fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad(4)
	if size == 0 || a.err != nil {
		return
	}
	end := a.size + size
	if a.err = write(a); a.err == nil && a.size != end {
		a.err = fmt.Errorf("%s: changed while it was packed", name)
	}
	a.pad(4)
}

// Write passes on and counts; entries are aligned by their place in the whole.
func (a *archive) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	a.size += int64(n)
	return n, err
}

func (a *archive) pad(align int64) {
	if rest := a.size % align; rest != 0 && a.err == nil {
		_, a.err = a.Write(make([]byte, align-rest))
	}
}

// close ends the archive on a boundary at which another may follow.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0, nil)
	a.pad(512)
	return a.err
}

// tree adds the folder at path under name. Symbolic links are followed, so
// that what they lead to is on the machine too; what is neither file nor
// folder is an error.
func (a *archive) tree(name, path string) {
	if a.err != nil {
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		a.err = err
	case info.IsDir():
		a.dir(name)
		var entries []fs.DirEntry
		if entries, a.err = os.ReadDir(path); a.err != nil {
			return
		}
		for _, e := range entries {
			a.tree(name+"/"+e.Name(), filepath.Join(path, e.Name()))
		}
	case info.Mode().IsRegular():
		a.entry(name, typeFile|uint32(info.Mode().Perm()), info.Size(), func(w io.Writer) error {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(w, f)
			return err
		})
	default:
		a.err = fmt.Errorf("%s: neither a file nor a folder", path)
	}
}
