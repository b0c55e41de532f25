package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// maxFile is the size in bytes of the largest file that is read.
const maxFile = 4 << 30

// Errors for what a well-formed file need not have.
var (
	ErrNoBuildID = errors.New("no build-id")
	ErrNoSymbols = errors.New("no symbol table")
	ErrNoDynamic = errors.New("no dynamic section")
	ErrNoEHFrame = errors.New("no call frame information")
)

// File is an ELF file in memory. It is immutable and may be used by several
// goroutines; slices that its methods return are shared and must not be
// changed.
type File struct {
	Arch *arch.Arch
	Type elf.Type // ET_REL, ET_EXEC or ET_DYN
	// Entry is the link-time address at which the program starts, or 0.
	Entry specs.VAddr
	// Flags is e_flags.
	Flags uint32
	// Sections are indexed like the file's section headers; section 0 is
	// empty. There may be none.
	Sections []Section
	Segments []elf.ProgHeader

	name    string // for errors; may be empty
	data    []byte
	relocs  map[int][]int // section → relocation sections that apply to it
	symbols func() ([]Symbol, error)
	dynsyms func() ([]Symbol, error)
	dynamic func() (*dynamicTable, error)
}

// Open reads the regular file at path, at most 4 GiB, wholly into memory.
// Errors begin with path.
func Open(path string) (*File, error) {
	// O_NONBLOCK: a FIFO in the file's place must not hold us up.
	osf, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer osf.Close()
	return OpenFile(osf)
}

// OpenFile reads the regular file osf from its start, like [Open]. The caller
// closes osf; the File does not need it.
func OpenFile(osf *os.File) (*File, error) {
	info, err := osf.Stat()
	if err != nil {
		return nil, err
	}
	name := osf.Name()
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", name, info.Size(), int64(maxFile))
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(io.NewSectionReader(osf, 0, info.Size()), data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return parse(name, data)
}

// Parse reads an ELF file from data, which the File keeps and the caller must
// not change.
func Parse(data []byte) (*File, error) { return parse("", data) }

func parse(name string, data []byte) (*File, error) {
	f := &File{name: name, data: data}
	h, err := parseHeader(data)
	if err != nil {
		return nil, f.wrap(err)
	}
	f.Arch, f.Type, f.Entry, f.Flags = h.arch, h.typ, h.entry, h.flags
	if err := f.parseSections(&h); err != nil {
		return nil, f.wrap(err)
	}
	if err := f.parseSegments(&h); err != nil {
		return nil, f.wrap(err)
	}
	f.symbols = sync.OnceValues(f.readSymbols)
	f.dynsyms = sync.OnceValues(f.readDynSymbols)
	f.dynamic = sync.OnceValues(f.readDynamic)
	return f, nil
}

func (f *File) parseSegments(h *header) error {
	if h.phnum == pnXNum && len(f.Sections) > 0 {
		h.phnum = int(f.Sections[0].Info)
	}
	if h.phnum == 0 {
		return nil
	}
	table, ok := f.slice(h.phoff, uint64(h.phnum)*phdrSize)
	if !ok || h.phentsz != phdrSize {
		return fmt.Errorf("program headers: %d at offset %#x: outside the file", h.phnum, h.phoff)
	}
	f.Segments = make([]elf.ProgHeader, h.phnum)
	for i := range f.Segments {
		p, err := parseSegment(table[i*phdrSize:])
		if err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
		if p.Type == elf.PT_LOAD {
			if _, ok := f.slice(p.Off, p.Filesz); !ok {
				return fmt.Errorf("segment %d: %#x bytes at offset %#x: outside the file", i, p.Filesz, p.Off)
			}
		}
		f.Segments[i] = p
	}
	return nil
}

// Size returns the size of the file in bytes.
func (f *File) Size() int { return len(f.data) }

// Image returns the range of link-time addresses that the PT_LOAD segments
// take up. It is empty for relocatable objects.
func (f *File) Image() specs.Range[specs.VAddr] {
	r, _ := loadRange(f.Segments)
	return r
}

// slice returns n bytes of the file from offset off, and whether the file has
// them.
func (f *File) slice(off, n uint64) ([]byte, bool) {
	size := uint64(len(f.data))
	if off > size || n > size-off {
		return nil, false
	}
	return f.data[off : off+n : off+n], true
}

// wrap prefixes err with the file's name, if it has one.
func (f *File) wrap(err error) error {
	if err == nil || f.name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", f.name, err)
}
