package elfobj

import (
	"debug/elf"
	"fmt"

	"github.com/fother/fother/specs"
)

// maxZeros is how many bytes of memory that is not in the file one ReadAt
// returns at most.
const maxZeros = 16 << 20

// loaded returns n bytes of the file that are loaded at link-time address v.
func (f *File) loaded(v, n uint64) ([]byte, bool) {
	for _, p := range f.Segments {
		if p.Type == elf.PT_LOAD && v >= p.Vaddr && v-p.Vaddr <= p.Filesz && n <= p.Filesz-(v-p.Vaddr) {
			return f.slice(p.Off+(v-p.Vaddr), n)
		}
	}
	return nil, false
}

// ReadAt returns n bytes of the linked file's memory as it is before any
// relocation, from link-time address v. All of them lie in one PT_LOAD
// segment; those that are not in the file (.bss) are zeros.
func (f *File) ReadAt(v specs.VAddr, n uint64) ([]byte, error) {
	if b, ok := f.loaded(uint64(v), n); ok {
		return b, nil
	}
	for _, p := range f.Segments {
		if p.Type != elf.PT_LOAD || uint64(v) < p.Vaddr || uint64(v)-p.Vaddr > p.Memsz || n > p.Memsz-(uint64(v)-p.Vaddr) {
			continue
		}
		skip := uint64(v) - p.Vaddr
		inFile := p.Filesz - min(skip, p.Filesz)
		if n-min(n, inFile) > maxZeros {
			return nil, f.wrap(fmt.Errorf("%#x bytes at %v: too many zeros", n, v))
		}
		b, ok := f.slice(p.Off+min(skip, p.Filesz), inFile)
		if !ok {
			break
		}
		return append(make([]byte, 0, n), b...)[:n], nil
	}
	return nil, f.wrap(fmt.Errorf("%#x bytes at %v: not in one segment", n, v))
}

// EHFrame is the call frame information of a linked file.
type EHFrame struct {
	// Addr is the link-time address of .eh_frame.
	Addr specs.VAddr
	Data []byte
	// HdrAddr is the link-time address of .eh_frame_hdr (PT_GNU_EH_FRAME), 0
	// if there is none.
	HdrAddr specs.VAddr
	Hdr     []byte
}

// EHFrame returns the call frame information of a linked file. The error is
// [ErrNoEHFrame] if there is none.
func (f *File) EHFrame() (EHFrame, error) {
	var eh EHFrame
	for _, p := range f.Segments {
		if p.Type != elf.PT_GNU_EH_FRAME {
			continue
		}
		b, ok := f.slice(p.Off, p.Filesz)
		if !ok {
			return EHFrame{}, f.wrap(fmt.Errorf(".eh_frame_hdr: %#x bytes at offset %#x: outside the file", p.Filesz, p.Off))
		}
		eh.HdrAddr, eh.Hdr = specs.VAddr(p.Vaddr), b
	}
	s := f.Section(".eh_frame")
	if s == nil || s.Flags&elf.SHF_ALLOC == 0 {
		return EHFrame{}, f.wrap(ErrNoEHFrame)
	}
	data, err := s.Data()
	if err != nil {
		return EHFrame{}, f.wrap(err)
	}
	eh.Addr, eh.Data = s.Addr, data
	return eh, nil
}
