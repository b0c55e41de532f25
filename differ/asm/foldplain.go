package asm

import "strings"

// Bits of bytes that may begin something that counts. A byte and the one before
// it that share a bit are looked at by scan.
const (
	bitWord  = 1 << iota // the begin of a symbol, behind what may be before one
	bitLabel             // the end of a numeric label: 1b, 1f
	bitStop              // always
)

// plains are the bits of a byte: before another one, and behind another one.
type plains struct{ before, behind [256]uint8 }

// plainBytes returns the bits for instructions of a dialect.
func plainBytes(d *Dialect, class *[256]class) *plains {
	t := new(plains)
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

// plainLines passes over the lines of text[i:end] that are instructions without
// symbols or noise. It returns how many they are, how many of them count, and
// their size.
func (s *scanner) plainLines(i, end int) (lines, count, size int) {
	text, before, behind := s.text[:end], &s.plain.before, &s.plain.behind
	start := i
	for i+2 < len(text) && text[i] == '\t' {
		k := i + 2
		if c := text[i+1]; c >= 'a' && c <= 'z' {
			for k < len(text) && before[text[k-1]]&behind[text[k]] == 0 {
				k++
			}
			if k >= len(text) || text[k] != '\n' || s.d.bareWord != nil && s.d.mayName(text[i+1:k]) {
				break
			}
			count++
		} else if k = noise(text, i+1); k == 0 {
			break
		}
		i = k + 1
		lines++
	}
	return lines, count, i - start
}

// noise returns the end of a line with one of the commonest directives that
// count for nothing, or 0.
func noise(text string, i int) int {
	const cfi, align = ".cfi_", ".p2align"
	l := text[i:]
	if len(l) <= len(align) || (l[:len(cfi)] != cfi || l[len(cfi)] == 'p' || l[len(cfi)] == 'l') && l[:len(align)] != align {
		return 0
	}
	n := strings.IndexByte(l, '\n')
	if n < 0 || !single(l[:n]) {
		return 0
	}
	return i + n
}

// single reports whether a line with a directive holds nothing else: no second
// statement, label or assignment.
func single(l string) bool {
	return strings.IndexByte(l, ';') < 0 && strings.IndexByte(l, '=') < 0 && strings.IndexByte(l, ':') < 0
}
