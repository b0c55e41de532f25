package unwind

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// cieMark is what a CIE of version 1 begins with, behind its length: it is
// told from an FDE by a zero, and its augmentation begins with 'z'.
var cieMark = []byte{0, 0, 0, 0, 1, 'z'}

// search looks for .eh_frame in img's read-only segments: entries that follow
// each other up to a terminator, and are about img's code and nothing else.
func search(mem io.ReaderAt, img *elfobj.Image) (*Object, error) {
	for s, err := range readOnly(mem, img) {
		if err != nil {
			return nil, fmt.Errorf("object at %v: %w", img.Base, err)
		}
		if o := searchSection(img, s); o != nil {
			return o, nil
		}
	}
	return nil, fmt.Errorf("object at %v: %w", img.Base, elfobj.ErrNoEHFrame)
}

// readOnly reads img's read-only segments, but none that lies in one of those before
// it. Of all of them together no more than maxEHFrame bytes are read.
func readOnly(mem io.ReaderAt, img *elfobj.Image) iter.Seq2[Section, error] {
	return func(yield func(Section, error) bool) {
		var read []specs.Range[specs.Addr]
		left := uint64(maxEHFrame)
		for _, p := range img.Segments {
			lo := img.Bias.Addr(specs.VAddr(p.Vaddr))
			r := specs.Range[specs.Addr]{Lo: lo, Hi: lo + specs.Addr(p.Filesz)}
			again := slices.ContainsFunc(read, func(o specs.Range[specs.Addr]) bool { return o.Lo <= r.Lo && r.Hi <= o.Hi })
			if p.Type != elf.PT_LOAD || p.Flags&elf.PF_W != 0 || again {
				continue
			}
			s, err := readSection(mem, lo, p.Filesz, left)
			read, left = append(read, r), left-min(left, p.Filesz)
			if !yield(s, err) {
				return
			}
		}
	}
}

func searchSection(img *elfobj.Image, s Section) *Object {
	for from := 0; ; {
		n := bytes.Index(s.Data[from:], cieMark)
		if n < 0 {
			return nil
		}
		start := from + n - 4
		from += n + len(cieMark)
		if start < 0 || start%4 != 0 {
			continue
		}
		frame := Section{s.Addr + specs.Addr(start), s.Data[start:]}
		o, err := New(img.Arch, img.Range, Section{}, frame)
		if err == nil && len(o.frame) < len(frame.Data) && len(o.index) > 0 && describes(img, o.index) {
			return o
		}
	}
}

// describes reports whether all of index is about img's code.
func describes(img *elfobj.Image, index []indexEntry) bool {
	for _, e := range index {
		if !executable(img, specs.Addr(e.pc)) {
			return false
		}
	}
	return true
}

func executable(img *elfobj.Image, a specs.Addr) bool {
	v := uint64(img.Bias.VAddr(a))
	for _, p := range img.Segments {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && v >= p.Vaddr && v-p.Vaddr < p.Memsz {
			return true
		}
	}
	return false
}
