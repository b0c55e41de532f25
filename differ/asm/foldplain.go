package asm

import (
	"math/bits"
	"strings"
)

// Bits of bytes that may begin something that counts. A byte and the one before
// it that share a bit are looked at by scan.
const (
	bitWord  = 1 << iota // the begin of a symbol, behind what may be before one
	bitLabel             // the end of a numeric label: 1b, 1f
	bitStop              // always
)

// plains are the bits of a byte: before another one, and behind another one.
type plains struct {
	before, behind [256]uint8
	// candidates is for 8 bytes at once, those before them and themselves: it
	// has bit 6 of each byte that may share a bit with the one before it, and
	// of some more. The byte before may be odd: if so it was found itself.
	candidates func(before, behind uint64) uint64
}

// plainBytes returns the bits for instructions of a dialect.
func plainBytes(d *Dialect, class *[256]class) *plains {
	t := &plains{candidates: candidatesPlain}
	if d.bareWord == nil {
		t.candidates = candidatesWord
	}
	for c := range class {
		t.before[c] = bitStop
		switch class[c] {
		case classDigit:
			t.before[c] |= bitLabel
		case classPlain:
			t.before[c] |= bitWord
		case classIdent:
			if d.bareWord == nil {
				t.behind[c] |= bitWord
			}
		case classOdd, classExact, classEnd:
			t.behind[c] |= bitStop
		}
	}
	t.behind['b'] |= bitLabel
	t.behind['f'] |= bitLabel
	t.behind[':'] |= bitStop
	t.behind['='] |= bitStop
	return t
}

// skip returns the first offset from k on at which a byte shares a bit with the
// one before it, or the end of the text.
func (t *plains) skip(text string, k int) int {
	for k < len(text) {
		if k+8 <= len(text) {
			found := t.candidates(word(text[k-1:]), word(text[k:]))
			if found == 0 {
				k += 8
				continue
			}
			k += bits.TrailingZeros64(found) / 8
		}
		if t.before[text[k-1]]&t.behind[text[k]] != 0 {
			break
		}
		// The byte behind one that looks odd is no candidate.
		if k++; k < len(text) && t.before[text[k-1]]&t.behind[text[k]] != 0 {
			break
		}
	}
	return min(k, len(text))
}

// noise returns the end of a line with one of the commonest directives that
// count for nothing, or 0.
func noise(text string, i int) int {
	const cfi, align = ".cfi_", ".p2align"
	l := text[i:]
	if len(l) <= len(align) || (l[:len(cfi)] != cfi || l[len(cfi)] == 'p' || l[len(cfi)] == 'l') && l[:len(align)] != align {
		return 0
	}
	for k := len(cfi); k < len(l); k++ {
		if c := l[k]; c < '%' || c > '9' || c == '/' || c == '\'' {
			switch c {
			case '\n':
				return i + k
			case '/', '\'', '"', '#', ':', ';', '=':
				return 0
			}
		}
	}
	return 0
}

// single reports whether a line with a directive holds nothing else: no second
// statement, label or assignment.
func single(l string) bool {
	return !strings.ContainsAny(l, ";=:\"'")
}
