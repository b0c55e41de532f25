package asm

import (
	"math/bits"
	"strings"
)

// A point is an offset in the body of a function at which something begins that
// may count, or that run does not know: a symbol, a line that is no instruction,
// a comment. What is between points are instructions without symbols, which are
// alike if their texts are. Most lines have no point.

// Each byte has a bit in each of these fields of a pointTable, eight bits wide:
// so the bits of eight bytes are gathered in one number.
const (
	fieldWord   = 8 * iota // begins a symbol, or is in a word
	fieldBefore            // may be before a symbol
	fieldPoint             // is one anywhere
	fieldDigit
	fieldNumeric // ends a numeric label, behind a digit: 1b, 1f
	fieldLine    // ends a line
	fieldTab
	fieldInsn // begins an instruction in which only what fieldWord finds is a symbol
)

// pointTable has the fields of each byte, as the highest bit of each.
type pointTable [256]uint64

// newPointTable returns the table of a dialect. It agrees with what scanner
// does about the classes.
func newPointTable(d *Dialect, class *[256]class) *pointTable {
	t := new(pointTable)
	for c := range 256 {
		in := func(field int, is bool) {
			if is {
				t[c] |= 0x80 << field
			}
		}
		k := class[c]
		in(fieldWord, k == classIdent && d.bareWord == nil)
		in(fieldBefore, k == classPlain)
		in(fieldPoint, k == classOdd || k == classExact || c == ':' || c == '=' || c == '\r')
		in(fieldDigit, k == classDigit)
		in(fieldNumeric, c == 'b' || c == 'f')
		in(fieldLine, c == '\n')
		in(fieldTab, c == '\t')
		in(fieldInsn, c >= 'a' && c <= 'z' && strings.IndexByte(d.naming, byte(c)) < 0)
	}
	return t
}

// pointReach is how much text points are looked for in at once, a multiple of
// 64 bytes: the body may end soon.
const pointReach = 1024

// points are the points of some whole lines.
type points struct {
	table *pointTable
	// list has them in order, and end behind the last; next is the one to look
	// at.
	list     [pointReach + 1]int32
	next     int
	from, to int // the lines
}

// seek goes to the first point from i on, where a line begins. It reports false
// if the line is too long, or too close to the end of the text.
func (p *points) seek(text string, i int) bool {
	if i < p.from || i >= p.to {
		return p.read(text, i)
	}
	for p.next > 0 && int(p.list[p.next-1]) >= i {
		p.next--
	}
	p.skip(i)
	return true
}

// skip goes to the first point from i on, or to the end of the lines.
func (p *points) skip(i int) {
	for int(p.list[p.next]) < i {
		p.next++
	}
}

// read finds the points in the lines from i on, where one begins.
func (p *points) read(text string, i int) bool {
	n, end := 0, i
	before := pointsBefore{line: 1}
	for lo := i; lo < i+pointReach && lo+64 <= len(text); lo += 64 {
		found, lines := p.table.block(text[lo:lo+64], &before)
		for ; found != 0; found &= found - 1 {
			p.list[n] = int32(lo + bits.TrailingZeros64(found))
			n++
		}
		if lines != 0 {
			end = lo + bits.Len64(lines)
		}
	}
	for n > 0 && int(p.list[n-1]) >= end {
		n--
	}
	p.list[n] = int32(end)
	p.next, p.from, p.to = 0, i, end
	return end > i
}

// pointsBefore is what block needs to know about the bytes before.
type pointsBefore struct {
	fields     uint64 // of the byte before, as the lowest bit of each
	line, head uint64 // 1 behind the end of a line, and behind a tab behind that
}

// block returns the points among 64 bytes and the ends of lines, the lowest bit
// for the first byte.
func (t *pointTable) block(s string, before *pointsBefore) (found, lines uint64) {
	s = s[:64]
	var tabs, insns uint64
	last := before.fields
	for k := 0; k < 64; k += 8 {
		w := s[k : k+8]
		at := ((t[w[0]]>>1|t[w[1]])>>2|t[w[2]]>>1|t[w[3]])>>4 | (t[w[4]]>>1|t[w[5]])>>2 | t[w[6]]>>1 | t[w[7]]
		behind := at<<1&^each | last
		last = at >> 7 & each
		is := at>>fieldWord&(behind>>fieldBefore) | at>>fieldPoint | behind>>fieldDigit&(at>>fieldNumeric)
		found = found>>8 | is<<56
		lines = lines>>8 | at>>fieldLine<<56
		tabs = tabs>>8 | at>>fieldTab<<56
		insns = insns>>8 | at>>fieldInsn<<56
	}
	begins := lines<<1 | before.line
	heads := begins&tabs<<1 | before.head
	found = found&^heads | begins&^tabs | heads&^insns
	before.fields, before.line, before.head = last, lines>>63, begins&tabs>>63
	return found, lines
}
