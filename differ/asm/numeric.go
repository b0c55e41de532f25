package asm

import (
	"cmp"
	"slices"
	"strings"
)

// Place is a position in an item, behind Ord statements that make bytes. Item is
// -1 for one outside of all items: in debug data, or nowhere.
type Place struct{ Item, Ord int32 }

// definition is one place where a numeric label stands.
type definition struct {
	lo int // offset into the unit's text
	at Place
}

// numbered notes the numeric label at offset lo, which the parser has just
// taken.
func (p *parser) numbered(name string, lo int) {
	at := Place{Item: -1}
	if sec := &p.Sections[p.sec]; sec.Kind != Ignored && sec.open >= 0 {
		at = Place{sec.open, p.Items[sec.open].Bytes}
	}
	if p.numeric == nil {
		p.numeric = make(map[string][]definition)
	}
	p.numeric[name] = append(p.numeric[name], definition{lo, at})
}

// bind notes the statements that mention a numeric label of another item. As
// as(1) reads the text, 1b is the last label 1 in the whole file ("Symbol Names"),
// whatever sections are between: items, which have the statements of one section,
// do not tell. Where all labels that a statement mentions are in its own item, the
// item does. Functions that mention any are not folded.
func (p *parser) bind() {
	if len(p.numeric) == 0 {
		return
	}
	for i := range p.Items {
		for _, st := range p.Items[i].Stmts {
			if st.Kind != Insn && st.Kind != Data {
				continue
			}
			places := p.places(st)
			if !slices.ContainsFunc(places, func(at Place) bool { return at.Item != int32(i) }) {
				continue
			}
			if p.Bound == nil {
				p.Bound = make(map[uint32][]Place)
			}
			p.Bound[st.Lo] = places
		}
	}
}

// places returns what the numeric labels in a statement stand for.
func (p *parser) places(st Stmt) (all []Place) {
	text := p.TextOf(st)
	for i := 0; i < len(text); {
		lo := strings.IndexAny(text[i:], "0123456789")
		if lo < 0 {
			break
		}
		lo += i
		for i = lo; i < len(text) && text[i]-'0' <= 9; i++ {
		}
		if i < len(text) && (text[i] == 'b' || text[i] == 'f') && alone(text, lo, i+1) {
			all = append(all, p.nearest(text[lo:i], int(st.Lo)+lo, text[i] == 'f'))
		}
		i = identEnd(text, i)
	}
	return all
}

// alone reports whether text[lo:hi] is a word of its own. A $ before it marks an
// immediate operand.
func alone(text string, lo, hi int) bool {
	if hi < len(text) && identPart[text[hi]] {
		return false
	}
	if lo > 0 && text[lo-1] == '$' {
		lo--
	}
	return lo == 0 || !identPart[text[lo-1]]
}

// nearest returns where the next label of that number stands, seen from offset at
// forward or backward.
func (p *parser) nearest(number string, at int, forward bool) Place {
	all := p.numeric[number]
	k, _ := slices.BinarySearchFunc(all, at, func(d definition, at int) int { return cmp.Compare(d.lo, at) })
	if !forward {
		k--
	}
	if k < 0 || k >= len(all) {
		return Place{Item: -1}
	}
	return all[k].at
}
