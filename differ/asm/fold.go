package asm

import (
	"cmp"
	"slices"
	"strings"
)

// Fold is the body of one function that both builds have alike, statement for
// statement, but for the symbols in Refs. A unit keeps it as one statement.
type Fold struct {
	// Lo and Hi are byte offsets into the unit's text: behind the function's
	// label, and before the .size directive that ends it.
	Lo, Hi uint32
	// Refs are the symbols outside the body that it mentions, in the order of
	// their first mention. Refs[k] of one build stands wherever Refs[k] of the
	// other does.
	Refs []string
	// Symbols are the indices of Refs in the unit's, -1 for those without.
	Symbols []int32

	name  string
	lines int
	// exits are the last two directives that change the section.
	exits [2]span
	// inner are the names, other than .L labels, that the body defines.
	inner []string
}

// Name is the function's.
func (f *Fold) Name() string { return f.name }

// PairOf reports whether f and g are the same function's of the two builds.
func (f *Fold) PairOf(g *Fold) bool { return f.name == g.name && len(f.Refs) == len(g.Refs) }

// span is a range of bytes of a text.
type span struct{ lo, hi int }

// FoldOf returns the index of the fold that statement s stands for.
func (u *Unit) FoldOf(s Stmt) int {
	i, _ := slices.BinarySearchFunc(u.Folds, s.Lo, func(f Fold, lo uint32) int { return cmp.Compare(f.Lo, lo) })
	return i
}

// foldPair returns the folds of two texts, those of one function at the same
// index, in the order of b.
func foldPair(a, b string, d *Dialect) (fa, fb []Fold) {
	if !strings.HasSuffix(a, "\n") || !strings.HasSuffix(b, "\n") {
		return nil, nil
	}
	f := &folder{d: d, class: classes(d), seen: make(map[string]seenRef), a: newFoldSide(a, d), b: newFoldSide(b, d)}
	for {
		name, ok := f.b.function()
		if !ok {
			return fa, fb
		}
		if !f.a.seek(name) || !f.alike(name) {
			f.b.leave(name)
			continue
		}
		x, y := f.folds(name)
		fa, fb = append(fa, x), append(fb, y)
	}
}

// folder compares bodies of two texts.
type folder struct {
	d            *Dialect
	class        *[256]class
	a, b         *foldSide
	pairs        [][2]string // of symbols that stand for each other
	outside      [][2]string // those of them that the bodies do not define, each once
	seen         map[string]seenRef
	refsA, refsB []span
	refs         []Ref
}

// seenRef is the symbol of b that stood for one of a in the given body.
type seenRef struct {
	name string
	body int
}

// alike reports whether the bodies at which both sides stand are the same but
// for symbols, which it leaves in pairs.
func (f *folder) alike(function string) bool {
	f.a.begin()
	f.b.begin()
	f.pairs = f.pairs[:0]
	for {
		la := f.a.text[f.a.i:lineEnd(f.a.text, f.a.i)]
		var lb string
		var ka, kb line
		if strings.HasPrefix(f.b.text[f.b.i:], f.a.text[f.a.i:f.a.i+len(la)+1]) {
			size := len(la)
			la = f.a.trim(la)
			lb, ka = la, f.a.kind(la, function)
			if kb = ka; ka != lineEnded {
				f.a.take(la, size, ka)
				f.b.take(lb, size, kb)
			}
			if ka == lineNoise || ka == lineLabel {
				continue
			}
		} else {
			la, ka = f.a.next(function)
			lb, kb = f.b.next(function)
		}
		if ka != kb {
			return false
		}
		switch ka {
		case lineEnded:
			return f.consistent()
		case lineOther:
			return false
		case lineInsn, lineData, lineCFI:
			if !f.statements(la[1:], lb[1:], ka) {
				return false
			}
		default:
			if la != lb {
				return false
			}
		}
		f.a.ord++
		f.b.ord++
	}
}

// statements compares two lines and notes the symbols in them.
func (f *folder) statements(la, lb string, kind line) bool {
	var ok bool
	if f.refsA, ok = f.mentions(f.refsA[:0], la, kind); !ok {
		return false
	}
	if la == lb {
		for _, r := range f.refsA {
			name := la[r.lo:r.hi]
			f.pairs = append(f.pairs, [2]string{name, name})
		}
		return true
	}
	if f.refsB, ok = f.mentions(f.refsB[:0], lb, kind); !ok || len(f.refsA) != len(f.refsB) {
		return false
	}
	atA, atB := 0, 0
	for i, ra := range f.refsA {
		rb := f.refsB[i]
		if la[atA:ra.lo] != lb[atB:rb.lo] {
			return false
		}
		atA, atB = ra.hi, rb.hi
		f.pairs = append(f.pairs, [2]string{la[ra.lo:ra.hi], lb[rb.lo:rb.hi]})
	}
	return la[atA:] == lb[atB:]
}

// class is what a byte in operands is.
type class uint8

const (
	classPlain class = iota
	classRegister
	classIdent
	classDigit
	classSuffix // of a symbol: @PLT
	classOdd
)

// classes returns the classes of bytes in a dialect.
func classes(d *Dialect) *[256]class {
	t := &[256]class{'@': classSuffix, ';': classOdd, '"': classOdd, '\'': classOdd, '/': classOdd, '#': classOdd, '{': classOdd, '\\': classOdd, '!': classOdd}
	if d.Registers == 0 { // A64: #immediates, writeback, register lists
		t['#'], t['!'], t['{'] = classPlain, classPlain, classPlain
	}
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = classDigit
		case identStart[c]:
			t[c] = classIdent
		}
	}
	if d.Registers != 0 {
		t[d.Registers] = classRegister
	}
	return t
}

// mentions appends the symbols of a line without the tab before it. It reports
// false for what is left to the parser: more than one statement, strings,
// comments, numeric labels.
func (f *folder) mentions(dst []span, l string, kind line) (refs []span, ok bool) {
	i := identEnd(l, 0)
	prefix := kind == lineInsn && f.d.prefix(l[:i])
	for i < len(l) {
		switch f.class[l[i]] {
		case classPlain:
			i++
		case classRegister, classSuffix:
			i = identEnd(l, i+1)
		case classIdent:
			lo := i
			if i = identEnd(l, i); i-lo > 1 || l[lo] != '.' {
				dst = append(dst, span{lo, i})
			}
		case classDigit:
			end := number(l, i)
			if last := l[end-1]; (last == 'b' || last == 'f') && !strings.HasPrefix(l[i:end], "0x") {
				return dst, false
			}
			i = end
		case classOdd:
			return dst, false
		}
	}
	if len(dst) > 0 && (prefix || kind == lineCFI || f.d.Registers == 0) {
		// Not every word is a symbol.
		dst = f.exact(dst[:0], l, kind)
	}
	return dst, true
}

// exact is what the dialect takes for symbols.
func (f *folder) exact(dst []span, l string, kind line) []span {
	f.refs = f.d.Refs(f.refs[:0], [...]Kind{lineInsn: Insn, lineData: Data, lineCFI: CFI}[kind], l)
	for _, r := range f.refs {
		dst = append(dst, span{r.Lo, r.Hi})
	}
	return dst
}

// consistent checks the labels of the bodies, and notes what is outside them.
func (f *folder) consistent() bool {
	f.outside = f.outside[:0]
	for _, p := range f.pairs {
		a, okA := f.a.find(p[0])
		b, okB := f.b.find(p[1])
		if okA != okB || a != b {
			return false
		}
		if is := (seenRef{p[1], f.a.body}); !okA && f.seen[p[0]] != is {
			f.seen[p[0]] = is
			f.outside = append(f.outside, p)
		}
	}
	return true
}

// folds returns what alike found.
func (f *folder) folds(name string) (x, y Fold) {
	x, y = f.a.fold(name), f.b.fold(name)
	x.Refs, y.Refs = make([]string, len(f.outside)), make([]string, len(f.outside))
	for i, p := range f.outside {
		x.Refs[i], y.Refs[i] = p[0], p[1]
	}
	return x, y
}

func (s *foldSide) fold(name string) Fold {
	return Fold{Lo: uint32(s.lo), Hi: uint32(s.i), name: name, lines: s.lines, exits: s.exits, inner: s.inner}
}
