package verify

import "bytes"

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
