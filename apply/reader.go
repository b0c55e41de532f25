package apply

import (
	"slices"
	"sync"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// Reader opens processes one after the other, and reads the headers of a file
// that is mapped in several of them only once. That it is the same build in each
// of them, its build-id in the memory of each tells. It may be used by several
// goroutines. A nil Reader knows nothing.
type Reader struct {
	mu    sync.RWMutex
	files map[fileKey]*knownFile
	// Both have the same, by what the maps file and the kernel's answers say.
	lines map[string]codeLine
	codes map[codeKey]codeLine
}

// NewReader returns a reader that knows no file yet.
func NewReader() *Reader {
	return &Reader{files: make(map[fileKey]*knownFile), lines: make(map[string]codeLine), codes: make(map[codeKey]codeLine)}
}

// Open is [Open].
func (r *Reader) Open(pid int) (*Process, error) { return openWith(r, pid, false) }

// fileKey is where the kernel says that a mapping comes from.
type fileKey struct {
	dev   string
	inode uint64
	path  string
}

// shareable reports whether other processes may have the same object mapped.
func (m *Mapping) shareable() bool { return m.Inode != 0 || m.Path == vdso }

// knownFile is an object as it is in one process.
type knownFile struct {
	image *elfobj.Image
	id    specs.BuildID
	// note is the segment with the build-id, offset its distance from the ELF header.
	note   []byte
	offset specs.Addr
}

// Bounds of what is kept: files, and bytes of a note.
const (
	maxKnownFiles = 16 << 10
	maxKnownNote  = 1 << 10
)

// find returns what is known of the file that m maps, or nil.
func (r *Reader) find(m *Mapping) *knownFile {
	if r == nil || !m.shareable() {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.files[fileKey{m.Dev, m.Inode, m.Path}]
}

// add takes in an object that was read.
func (r *Reader) add(m *Mapping, image *elfobj.Image, id specs.BuildID) {
	if r == nil || !m.shareable() || id == "" {
		return
	}
	at, note, err := image.NoteOfBuildID()
	if err != nil || len(note) > maxKnownNote || at < image.Base {
		return
	}
	k := &knownFile{image.At(nil, image.Base), id, slices.Clone(note), at - image.Base}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) < maxKnownFiles {
		r.files[fileKey{m.Dev, m.Inode, m.Path}] = k
	}
}
