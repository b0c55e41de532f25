package verify

import (
	"bytes"
	"debug/elf"

	"github.com/fother/fother/kpack/elfobj"
)

// sameEnd reports whether one string ends at both places: code that copies a
// string may refer to its end alone, and what is behind that is another
// constant, whether somebody refers to it or not.
func sameEnd(x, y place) bool {
	a, b := x.endingText(), y.endingText()
	return len(a) > 0 && bytes.Equal(a, b)
}

// endingText returns the string that the zero at p ends, nil if there is none.
func (p place) endingText() []byte {
	s := p.img.section(p.addr)
	if s == nil || p.addr-s.lo >= uint64(len(s.data)) || s.data[p.addr-s.lo] != 0 {
		return nil
	}
	end := int(p.addr - s.lo)
	before := s.data[max(0, end-maxContent):end]
	if before = before[bytes.LastIndexByte(before, 0)+1:]; !text(before) {
		return nil
	}
	return before
}

// literal reports whether the constant at p is a string of size bytes and the zero
// behind them, though nobody refers to anything in its n bytes. Compilers leave
// strings that they compare a few bytes with, and no longer refer to, behind others.
//
// It is one if a section of strings has it, of which the linker leaves one, and no
// other is in the file; and what follows up to n are such strings too.
//
// A patch has no such strings around its own, but its code is also that of the
// build that it is held against, of which the same is asked.
func (c *comparison) literal(p place, size int, n uint64) bool {
	if p.img.outer != nil {
		return true
	}
	b := p.img.bytes(p.addr, maxContent)
	text := b[:size+1]
	if !c.literals[string(b[:size])] || !p.img.once(text) {
		return false
	}
	for at := size + 1; uint64(at) < n; {
		end := bytes.IndexByte(b[at:], 0)
		if end == 0 {
			return p.img.aligns(p.addr + uint64(at))
		}
		if end < 0 || !c.literals[string(b[at:at+end])] {
			return false
		}
		at += end + 1
	}
	return true
}

// once reports whether text is in one place only of all constants.
func (im *image) once(text []byte) bool {
	n := 0
	for i := range im.secs {
		if s := &im.secs[i]; !s.exec && !s.write && s.program() {
			n += bytes.Count(s.data, text)
		}
	}
	return n == 1
}

// aligns reports whether there are only zeros between v and what begins behind it,
// no more than that may need to be aligned.
func (im *image) aligns(v uint64) bool {
	const most = 64 // bytes: the alignment of a cache line
	n := im.extent(v)
	next := v + n
	return n < min(most, next&-next) && zeros(im.bytes(v, n))
}

// AddLiterals adds to all the strings that an object has in sections of strings, as
// [Compare] wants them. Source: gABI, "Section Attribute Flags", SHF_STRINGS.
func AddLiterals(all map[string]bool, object *elfobj.File) error {
	const flags = elf.SHF_ALLOC | elf.SHF_MERGE | elf.SHF_STRINGS
	for i := range object.Sections {
		s := &object.Sections[i]
		if s.Flags&(flags|elf.SHF_WRITE) != flags || s.Entsize != 1 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		for {
			text, rest, ended := bytes.Cut(data, []byte{0})
			if !ended {
				break
			}
			all[string(text)] = true
			data = rest
		}
	}
	return nil
}
