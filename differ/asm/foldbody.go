package asm

import "math/bits"

// window bounds how far the texts are compared at once: what is behind the body
// would be compared again.
const window = 2048

// alike reports whether the bodies at which both sides stand are the same but
// for symbols. It leaves those that the bodies do not define in outside.
func (f *folder) alike(function string) bool {
	f.a.begin()
	f.b.begin()
	f.body++
	f.ord, f.pairs = 0, f.pairs[:0]
	for same := 0; ; {
		same = f.run(same)
		if f.a.labels.twice || f.b.labels.twice {
			return false
		}
		var l, m scanned
		var ok bool
		if l, f.refsA = f.a.scan(f.a.i, function, f.refsA[:0]); l.kind != lineOther && int(l.next)-f.a.i <= same {
			same -= int(l.next) - f.a.i
			m = f.written(l)
		} else if l, m, ok = f.differing(l, function); ok {
			same = 0
		} else {
			return false
		}
		if l.kind == lineEnded {
			return f.consistent()
		}
		if !f.take(f.a, l) || !f.take(f.b, m) {
			return false
		}
		if l.kind != lineNoise && l.kind != lineLabel {
			f.ord++
		}
	}
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
		if a := f.a.text[f.a.i:l.next]; len(f.b.text)-f.b.i >= len(a) && f.b.text[f.b.i:f.b.i+len(a)] == a {
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
	s.lines++
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
		a, b := f.a.text[p.a.lo:p.a.hi], f.b.text[p.b.lo:p.b.hi]
		if at := f.a.labels.find(p.a.label, a); at.body == f.body {
			if f.b.labels.find(p.b.label, b) != at {
				return false
			}
			continue
		}
		if f.b.labels.find(p.b.label, b).body == f.body {
			return false
		}
		f.note(a, b)
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
	n, i := min(len(a), len(b)), 0
	for ; i+8 <= n; i += 8 {
		if x := word(a[i:]) ^ word(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for ; i < n && a[i] == b[i]; i++ {
	}
	return i
}

// word returns the first 8 bytes of s.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
