package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds on what is unpacked. Chromium, about the largest source there is, has
// half a million files and some 10 GiB.
const (
	maxEntries = 1 << 20
	maxName    = 4095      // bytes of one name, PATH_MAX without its NUL
	maxNames   = 128 << 20 // bytes of all names
	maxDepth   = 255       // folders inside each other
	// An archive may grow to freeSize, and beyond it to maxRatio times its own
	// size, but never above maxSize. Text shrinks to a tenth.
	maxRatio = 200
	maxSize  = 64 << 30
)

// freeSize is changed by tests only.
var freeSize int64 = 256 << 20

// UnsafeError says that an entry of an archive would not stay in the tree, or
// is none that a source tree has.
type UnsafeError struct {
	Entry, Reason string
}

func (e *UnsafeError) Error() string { return fmt.Sprintf("entry %.200q %s", e.Entry, e.Reason) }

// kind is what an entry is.
type kind int

const (
	regular kind = iota
	folder
	symlink
	hardlink
)

// entry is one entry of an archive.
type entry struct {
	name    string
	kind    kind
	link    string    // target of symlink and hardlink
	content io.Reader // of regular
	mode    fs.FileMode
	time    time.Time
}

// A writer writes the entries of an archive below a root, to which nobody else
// writes.
type writer struct {
	root    *os.Root
	left    int64 // bytes that may still be written
	entries int
	names   int
	folders map[string]bool // folders that are there
	links   map[string]bool // symbolic links that are there
	set     []entry         // folders whose mode and time are set last
	newest  time.Time       // of all entries
}

func newWriter(root *os.Root, size int64) *writer {
	return &writer{
		root: root, left: min(max(freeSize, size*maxRatio), maxSize),
		folders: map[string]bool{".": true}, links: map[string]bool{},
	}
}

// put writes one entry. An entry replaces a file or link of the same name that
// came before it, as tar does.
func (w *writer) put(e entry) error {
	name, err := cleanName(e.name)
	if err != nil {
		return err
	}
	w.entries++
	w.names += len(e.name) + len(e.link)
	if w.entries > maxEntries || w.names > maxNames {
		return fmt.Errorf("more than %d entries, or %d bytes of names: %w", maxEntries, maxNames, ErrTooLarge)
	}
	e.name, e.time = name, fileTime(e.time)
	if e.time.After(w.newest) {
		w.newest = e.time
	}
	if e.kind == folder {
		return w.folder(e)
	}
	if err := w.makeRoom(e); err != nil {
		return err
	}
	switch e.kind {
	case symlink:
		w.links[name] = true
		return w.root.Symlink(e.link, name) // where it leads is seen at the end
	case hardlink:
		return w.hardlink(e)
	}
	if err := w.file(e); err != nil {
		return fmt.Errorf("entry %.200q: %w", name, err)
	}
	return nil
}

// cleanName returns the name of an entry without what means nothing.
func cleanName(name string) (string, error) {
	switch {
	case len(name) > maxName || strings.Count(name, "/") > maxDepth:
		return "", &UnsafeError{name, "has a name that is too long"}
	case strings.ContainsAny(name, "\\\x00"):
		return "", &UnsafeError{name, "has a backslash or NUL in its name"}
	case path.IsAbs(name) || !filepath.IsLocal(path.Clean(name)):
		return "", &UnsafeError{name, "leads out of the tree"}
	}
	return path.Clean(name), nil
}

// folder makes a folder.
func (w *writer) folder(e entry) error {
	if w.links[e.name] {
		return &UnsafeError{e.name, "is a folder in the place of a symbolic link"}
	}
	if err := w.mkdir(e.name); err != nil {
		return err
	}
	w.set = append(w.set, e)
	return nil
}

// mkdir makes a folder and those that it is in. None of them may be a link: an
// entry that goes through a link of the same archive is an attack.
func (w *writer) mkdir(name string) error {
	if w.folders[name] {
		return nil
	}
	if w.links[name] {
		return &UnsafeError{name, "is a symbolic link that other entries go through"}
	}
	if err := w.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if err := w.root.Mkdir(name, 0o755); errors.Is(err, fs.ErrExist) {
		return &UnsafeError{name, "is both a file and a folder"}
	} else if err != nil {
		return err
	}
	w.folders[name] = true
	return w.root.Chmod(name, 0o755) // whatever the umask
}

// makeRoom makes the folder of e and removes what has its name.
func (w *writer) makeRoom(e entry) error {
	if w.folders[e.name] {
		return &UnsafeError{e.name, "is both a file and a folder"}
	}
	if err := w.mkdir(path.Dir(e.name)); err != nil {
		return err
	}
	delete(w.links, e.name)
	if err := w.root.Remove(e.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// hardlink makes e another name of a file that is there. It counts as if it
// were a copy, which it becomes when the tree is copied.
func (w *writer) hardlink(e entry) error {
	to, err := cleanName(e.link)
	if err != nil {
		return &UnsafeError{e.name, "is a link that leads out of the tree"}
	}
	info, err := w.root.Lstat(to)
	if err != nil || !info.Mode().IsRegular() || !w.folders[path.Dir(to)] {
		return &UnsafeError{e.name, fmt.Sprintf("is a hard link to %.200q, which is no file before it", e.link)}
	}
	if w.left -= info.Size(); w.left < 0 {
		return ErrTooLarge
	}
	return w.root.Link(to, e.name)
}

// file writes a regular file.
func (w *writer) file(e entry) error {
	f, err := w.root.OpenFile(e.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, io.LimitReader(e.content, w.left+1))
	if err != nil {
		return err
	}
	if w.left -= n; w.left < 0 {
		return ErrTooLarge
	}
	if err := f.Chmod(fileMode(e.mode)); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return w.root.Chtimes(e.name, e.time, e.time)
}

// fileMode keeps of a mode what is harmless, and lets the owner write, since
// sources are patched.
func fileMode(m fs.FileMode) fs.FileMode { return m&0o755 | 0o600 }

// fileTime returns t, or the epoch if no file system could hold t.
func fileTime(t time.Time) time.Time {
	if t.Year() < 1970 || t.Year() > 2200 {
		return time.Unix(0, 0)
	}
	return t
}

// finish sets the modes and times of folders, which writing in them changes.
// Those that the archive does not name are of the time of its newest entry.
func (w *writer) finish() error {
	for name := range w.folders {
		if err := w.root.Chtimes(name, w.newest, w.newest); err != nil {
			return err
		}
	}
	for _, e := range slices.Backward(w.set) {
		if err := w.root.Chmod(e.name, fileMode(e.mode)|0o700); err != nil {
			return err
		}
		if err := w.root.Chtimes(e.name, e.time, e.time); err != nil {
			return err
		}
	}
	return nil
}

// settle checks what was unpacked in the folder dir and returns the folder of
// the tree: dir, or the only folder in it.
func settle(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) == 0 {
		return "", errors.New("the archive is empty")
	}
	if len(entries) == 1 && entries[0].IsDir() {
		dir = filepath.Join(dir, entries[0].Name())
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	return dir, checkLinks(root)
}
