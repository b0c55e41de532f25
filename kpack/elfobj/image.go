package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Bounds of what is read of an object in memory, in bytes.
const (
	maxDynamic = 64 << 10
	maxEHHdr   = 256 << 20
)

// Image is an ELF object as it is mapped in a process. Its addresses are
// run-time addresses. It may be used by several goroutines.
//
// Pages that Lookup touches are kept, so an Image holds for as long as the
// object stays mapped.
type Image struct {
	Arch *arch.Arch
	Type elf.Type // ET_EXEC or ET_DYN
	// Base is the address of the ELF header.
	Base specs.Addr
	Bias specs.Bias
	// Entry is the address at which the program starts; it means nothing for
	// most libraries.
	Entry specs.Addr
	// Range is what the PT_LOAD segments take up.
	Range specs.Range[specs.Addr]
	// Segments are as in the file: in link-time addresses.
	Segments []elf.ProgHeader

	mem   *pages
	table func() (*lookupTable, error)
}

// OpenImage reads the headers of the object whose ELF header lies at base in
// the process whose memory mem reads: offsets of mem are run-time addresses,
// as in /proc/PID/mem. It reads one page, more only if the headers do not fit.
// The object may be any that is mapped with its header, the vDSO too.
func OpenImage(mem io.ReaderAt, base specs.Addr) (*Image, error) {
	img := &Image{Base: base, mem: &pages{mem: mem}}
	if err := img.readHeaders(); err != nil {
		return nil, img.wrap(err)
	}
	img.table = sync.OnceValues(img.readLookupTable)
	return img, nil
}

func (i *Image) readHeaders() error {
	first, err := i.mem.read(i.Base, ehdrSize)
	if err != nil {
		return fmt.Errorf("ELF header: %w", err)
	}
	h, segs, err := readHeaders(first, func(off, n uint64) ([]byte, error) {
		if specs.Addr(off) > ^i.Base {
			return nil, errors.New("extent wraps around")
		}
		return i.mem.read(i.Base+specs.Addr(off), n)
	})
	if err != nil {
		return err
	}
	if h.typ == elf.ET_REL {
		return errors.New("a relocatable object is never mapped")
	}
	i.Arch, i.Type, i.Segments = h.arch, h.typ, segs
	return i.place(h.entry)
}

// place finds the load bias: the segment that begins the file has the ELF
// header mapped in front of it, at the same distance as in the file.
func (i *Image) place(entry specs.VAddr) error {
	r, ok := loadRange(i.Segments)
	if !ok {
		return errors.New("no PT_LOAD segment")
	}
	var first *elf.ProgHeader
	for n := range i.Segments {
		if p := &i.Segments[n]; p.Type == elf.PT_LOAD && (first == nil || p.Off < first.Off) {
			first = p
		}
	}
	i.Bias = specs.Bias(uint64(i.Base) - (first.Vaddr - first.Off))
	if i.Type == elf.ET_EXEC && i.Bias != 0 {
		return fmt.Errorf("executable that is not position independent: linked for %#x", first.Vaddr-first.Off)
	}
	i.Range = specs.Range[specs.Addr]{Lo: i.Bias.Addr(r.Lo), Hi: i.Bias.Addr(r.Hi)}
	if i.Range.Hi < i.Range.Lo {
		return errors.New("extent wraps around")
	}
	i.Entry = i.Bias.Addr(entry)
	return nil
}

// BuildID returns the build-id from the note segments in memory. The error is
// [ErrNoBuildID] if there is none.
func (i *Image) BuildID() (specs.BuildID, error) {
	id, err := findBuildID(i.Segments, func(p *elf.ProgHeader) ([]byte, error) {
		return i.segment(p, maxNotes)
	})
	return id, i.wrap(err)
}

// NoteOfBuildID returns the note segment that has the build-id, with its address, as it was
// when it was first read. Who wants to know whether an address still holds the same
// object reads there again. The error is [ErrNoBuildID] if there is none.
func (i *Image) NoteOfBuildID() (at specs.Addr, note []byte, err error) {
	for n := range i.Segments {
		if i.Segments[n].Type != elf.PT_NOTE {
			continue
		}
		_, err := findBuildID(i.Segments[n:n+1], func(p *elf.ProgHeader) (b []byte, err error) {
			at = i.Bias.Addr(specs.VAddr(p.Vaddr))
			note, err = i.segment(p, maxNotes)
			return note, err
		})
		if !errors.Is(err, ErrNoBuildID) {
			return at, note, i.wrap(err)
		}
	}
	return 0, nil, i.wrap(ErrNoBuildID)
}

// At returns the image of another copy of the same build, whose ELF header lies
// at base in the memory that mem reads. It reads nothing. It returns nil for an
// executable that cannot lie there.
func (i *Image) At(mem io.ReaderAt, base specs.Addr) *Image {
	if i.Type == elf.ET_EXEC && base != i.Base {
		return nil
	}
	move := base - i.Base // may wrap around, as additions of it do
	o := &Image{
		Arch: i.Arch, Type: i.Type, Base: base, Bias: i.Bias + specs.Bias(move), Entry: i.Entry + move,
		Range: specs.Range[specs.Addr]{Lo: i.Range.Lo + move, Hi: i.Range.Hi + move}, Segments: i.Segments, mem: &pages{mem: mem},
	}
	if o.Range.Hi < o.Range.Lo {
		return nil
	}
	o.table = sync.OnceValues(o.readLookupTable)
	return o
}

// EHFrameHdr returns the address and the content of .eh_frame_hdr
// (PT_GNU_EH_FRAME). The error is [ErrNoEHFrame] if there is none.
func (i *Image) EHFrameHdr() (specs.Addr, []byte, error) {
	for n := range i.Segments {
		p := &i.Segments[n]
		if p.Type != elf.PT_GNU_EH_FRAME {
			continue
		}
		if p.Memsz > maxEHHdr {
			return 0, nil, i.wrap(fmt.Errorf(".eh_frame_hdr: %d bytes: want at most %d", p.Memsz, maxEHHdr))
		}
		b, err := i.segment(p, maxEHHdr)
		if err != nil {
			return 0, nil, i.wrap(fmt.Errorf(".eh_frame_hdr: %w", err))
		}
		return i.Bias.Addr(specs.VAddr(p.Vaddr)), b, nil
	}
	return 0, nil, i.wrap(ErrNoEHFrame)
}

// segment reads the memory of segment p, at most limit bytes of it.
func (i *Image) segment(p *elf.ProgHeader, limit uint64) ([]byte, error) {
	lo := i.Bias.Addr(specs.VAddr(p.Vaddr))
	if err := i.inside(lo, p.Memsz); err != nil {
		return nil, err
	}
	return i.mem.read(lo, min(p.Memsz, limit))
}

// inside checks that n bytes at a belong to the object.
func (i *Image) inside(a specs.Addr, n uint64) error {
	if a < i.Range.Lo || a > i.Range.Hi || n > uint64(i.Range.Hi-a) {
		return fmt.Errorf("%#x bytes at %v: outside the object %v", n, a, i.Range)
	}
	return nil
}

func (i *Image) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("object at %v: %w", i.Base, err)
}
