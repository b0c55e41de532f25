package asm

import (
	"math/bits"
	"strings"
)

// alike reports whether the bodies at which both sides stand are the same but
// for symbols. It leaves those that the bodies do not define in outside.
func (f *folder) alike(function string) bool {
	f.a.begin()
	f.b.begin()
	f.body++
	f.ord, f.pairs = 0, f.pairs[:0]
	for {
		f.run()
		if f.a.labels.twice || f.b.labels.twice {
			return false
		}
		l, m, ok := f.lines(function)
		if !ok {
			return false
		}
		if l.kind == lineEnded {
			return f.consistent()
		}
		if !f.take(f.a, l) || !f.take(f.b, m) {
			return false
		}
		if l.kind != lineNoise && l.kind != lineLabel {
			f.ord = int32(f.a.i - f.a.lo)
		}
	}
}

// lines returns the next lines of both bodies, or the next that count, and
// reports whether they are the same but for symbols.
func (f *folder) lines(function string) (l, m scanned, ok bool) {
	l, f.refsA = f.a.scan(f.a.i, function, f.refsA[:0])
	switch {
	case l.kind == lineOther:
		return l, l, false
	case strings.HasPrefix(f.b.text[f.b.i:], f.a.text[f.a.i:l.next]):
		return l, f.written(l), true
	case l.kind == lineNoise:
		if m, f.refsB = f.b.scan(f.b.i, function, f.refsB[:0]); m.kind == lineNoise {
			return l, m, true
		}
	}
	return f.differing(l, function)
}

// written pairs the symbols of line l of a with those of the line of b, whose
// text is the same, and returns that.
func (f *folder) written(l scanned) scanned {
	by := int32(f.b.i - f.a.i)
	for _, r := range f.refsA {
		f.pairs = append(f.pairs, pair{r, mention{r.label, r.lo + by, r.hi + by}})
	}
	l.lo, l.hi, l.next = l.lo+by, l.hi+by, l.next+by
	return l
}

// differing goes on to the next lines that count, l of a being looked at, and
// reports whether they are the same but for symbols.
func (f *folder) differing(l scanned, function string) (la, lb scanned, ok bool) {
	for l.kind == lineNoise || l.kind == lineLabel {
		if !f.take(f.a, l) {
			return l, l, false
		}
		l, f.refsA = f.a.scan(f.a.i, function, f.refsA[:0])
	}
	if l.kind == lineOther {
		return l, l, false
	}
	for {
		if strings.HasPrefix(f.b.text[f.b.i:], f.a.text[f.a.i:l.next]) {
			return l, f.written(l), true
		}
		var m scanned
		m, f.refsB = f.b.scan(f.b.i, function, f.refsB[:0])
		if m.kind != lineNoise && m.kind != lineLabel {
			return l, m, m.kind == l.kind && f.statements(l, m)
		}
		if !f.take(f.b, m) {
			return l, m, false
		}
	}
}

// statements compares two statements and notes the symbols in them.
func (f *folder) statements(l, m scanned) bool {
	if len(f.refsA) != len(f.refsB) {
		return false
	}
	a, b := l.lo, m.lo
	for i, ra := range f.refsA {
		rb := f.refsB[i]
		if f.a.text[a:ra.lo] != f.b.text[b:rb.lo] {
			return false
		}
		a, b = ra.hi, rb.hi
		f.pairs = append(f.pairs, pair{ra, rb})
	}
	return f.a.text[a:l.hi] == f.b.text[b:m.hi]
}

// take goes behind a line. It reports false if that defines a label again.
func (f *folder) take(s *foldSide, l scanned) bool {
	lo := s.i
	s.i = int(l.next)
	switch l.kind {
	case lineName:
		if len(s.visits) == s.from {
			return false // it begins an item of its own
		}
		v, at := &s.visits[len(s.visits)-1], span{int(l.lo), int(l.hi)}
		if v.last = at; v.first.hi == 0 {
			v.first = at
		}
		fallthrough
	case lineLabel:
		return s.labels.define(l.label, s.text[l.lo:l.hi], place{f.body, f.ord})
	case lineSection:
		s.visits = append(s.visits, visit{directive: span{int(l.lo), int(l.hi)}})
	case lineType:
		s.typed = span{int(l.lo), int(l.hi)}
	}
	return s.i > lo
}

// consistent checks the labels of the bodies, and notes what is outside them.
func (f *folder) consistent() bool {
	if !f.a.typedHere(f.body) || !f.b.typedHere(f.body) {
		return false
	}
	f.outside = f.outside[:0]
	for i := range f.pairs {
		p := &f.pairs[i]
		in, at := f.a.inside(f.body, &p.a), f.b.inside(f.body, &p.b)
		switch {
		case in.body != f.body && at.body != f.body:
			f.note(f.a.text[p.a.lo:p.a.hi], f.b.text[p.b.lo:p.b.hi])
		case in != at:
			return false
		}
	}
	return true
}

// note adds two names that stand for each other to outside, once.
func (f *folder) note(a, b string) {
	x := f.names.id(a)
	y := x
	if a != b {
		y = f.names.id(b)
	}
	for int(x) >= len(f.seen) {
		f.seen = append(f.seen, seenName{})
	}
	if is := (seenName{f.body, y}); f.seen[x] != is {
		f.seen[x] = is
		f.outside = append(f.outside, [2]int32{x, y})
	}
}

// common returns the length of the longest beginning that two texts share.
func common(a, b string) int {
	i := 0
	for len(a) >= 8 && len(b) >= 8 {
		if x := word(a) ^ word(b); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
		a, b, i = a[8:], b[8:], i+8
	}
	for k := 0; k < len(a) && k < len(b) && a[k] == b[k]; k++ {
		i++
	}
	return i
}

// each has every byte 1.
const each = 0x0101010101010101

// word returns the first 8 bytes of s.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
