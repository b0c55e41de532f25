package asm

import (
	"math/bits"
	"strings"
)

// label stands for a local label whose name ends in a number, without its text:
// the family is the name before the number. The zero value is another name.
type label struct {
	family int32 // from 1
	number int32
}

// place is where a body defines a label: behind a line that counts and ends ord
// bytes behind the body's begin in the text of a, so that it is 0 for the begin
// and the same in both builds. A negative ord stands for the begin of what visit
// -1-ord puts into another section; the label is outside the body then, right
// before that.
type place struct{ body, ord int32 }

// families gives the local labels of two texts numbers. Labels mostly come in
// few families: .L, .LC, .LVL, and with clang one for each function, .LBB7_.
type families struct {
	ids    map[string]int32 // by prefix
	last   [2]string        // prefixes that were asked for last,
	lastID [2]int32         // and their families
	// room is how many more labels, or pages of them, there is memory for.
	room int
}

const (
	// maxFamilies bounds the families: labels of further ones go by their names.
	maxFamilies = 1 << 16
	// plainFamily is that of .L7.
	plainFamily = 1
)

// newFamilies makes room for the labels of a text of that many bytes: a label
// and the line break behind it are never shorter than 8 bytes by much.
func newFamilies(size int) *families {
	return &families{ids: make(map[string]int32), room: size/8 + 1<<16}
}

// at returns the label that begins at i, which begins with .L, and its end. It is
// of(text[i:end]), but quicker for most.
func (f *families) at(text string, i int) (label, int) {
	if n, end := number8(text, i+2); end > 0 {
		return label{plainFamily, n}, end
	}
	for k, prefix := range f.last {
		if prefix != "" && strings.HasPrefix(text[i:], prefix) {
			if n, end := number8(text, i+len(prefix)); end > 0 {
				return label{f.lastID[k], n}, end
			}
		}
	}
	end := identEnd(text, i)
	return f.of(text[i:end]), end
}

// number8 returns the number that is at i and ends a word, and where that ends.
// The end is 0 if there is none, if it has more than 8 digits, begins with a
// zero, or is close to the end of the text. The digits are taken as one number,
// the first in its lowest byte, and then two, four and eight of them together.
func number8(text string, i int) (n int32, end int) {
	if len(text)-i < 9 {
		return 0, 0
	}
	w := word(text[i:]) ^ '0'*each
	digits := bits.TrailingZeros64((w+(128-10)*each|w)&(128*each)) / 8
	if end = i + digits; digits == 0 || identPart[text[end]] || w&255 == 0 && digits > 1 {
		return 0, 0
	}
	w <<= 64 - 8*digits
	w = (w*10 + w>>8) & 0x00ff00ff00ff00ff
	w = (w*100 + w>>16) & 0x0000ffff0000ffff
	return int32(w*10000 + w>>32), end
}

// of returns the label of that name, which begins with .L, or the zero label if
// it has no number. Zeros in front of a number belong to what is before it.
func (f *families) of(name string) label {
	k := len(name)
	for k > 2 && name[k-1]-'0' <= 9 {
		k--
	}
	for k < len(name)-1 && name[k] == '0' {
		k++
	}
	if k == len(name) || len(name)-k > 8 {
		return label{}
	}
	n := int32(0)
	for _, c := range []byte(name[k:]) {
		n = 10*n + int32(c-'0')
	}
	return label{f.family(name[:k]), n}
}

// family returns the number of a prefix, or 0 if there are too many.
func (f *families) family(prefix string) int32 {
	if prefix == ".L" {
		return plainFamily
	}
	if prefix == f.last[0] {
		return f.lastID[0]
	}
	if prefix == f.last[1] {
		return f.lastID[1]
	}
	id, ok := f.ids[prefix]
	if !ok && len(f.ids) < maxFamilies {
		id = plainFamily + 1 + int32(len(f.ids))
		f.ids[prefix] = id
	}
	f.last[1], f.lastID[1] = f.last[0], f.lastID[0]
	f.last[0], f.lastID[0] = prefix, id
	return id
}

// foldLabels are the labels that the bodies of one text define.
type foldLabels struct {
	*families
	numbered [][]*page        // by family and number
	named    map[string]place // others
	naming   int32            // the body that defined one of named last
	twice    bool             // the last label was defined before
}

// page has the places of labels of one family that have neighbouring numbers:
// those that g++ gives functions begin at some thousands and have gaps.
type page [1 << 5]place

// slot returns where the place of a label with a number is kept, or nil if there
// is no room for it.
func (d *foldLabels) slot(l label) *place {
	if int(l.family) >= len(d.numbered) {
		d.numbered = append(d.numbered, make([][]*page, int(l.family)+1-len(d.numbered))...)
	}
	in, n := d.numbered[l.family], int(l.number)/len(page{})
	if n >= len(in) {
		if n+1-len(in) > d.room {
			return nil
		}
		size := max(n+1, min(max(2*len(in), 16), len(in)+d.room))
		d.room -= size - len(in)
		in = append(make([]*page, 0, size), in...)[:size]
		d.numbered[l.family] = in
	}
	if in[n] == nil {
		if len(page{}) > d.room {
			return nil
		}
		d.room -= len(page{})
		in[n] = new(page)
	}
	return &in[n][int(l.number)%len(page{})]
}

// put notes a label in its slot. It reports false if it is defined already.
func (d *foldLabels) put(slot *place, at place) bool {
	if d.twice = slot.body != 0; !d.twice {
		*slot = at
	}
	return !d.twice
}

// define notes a label. It reports false if it is defined already, or if there
// is no room for it.
func (d *foldLabels) define(l label, name string, at place) bool {
	if l.family == 0 {
		if _, d.twice = d.named[name]; !d.twice {
			d.named[name] = at
			d.naming = at.body
		}
		return !d.twice
	}
	slot := d.slot(l)
	return slot != nil && d.put(slot, at)
}

// bury notes that a label stands before the part that a body puts somewhere else
// in its given visit. It reports false if the label is known as another, or if
// there is no room for it.
func (d *foldLabels) bury(name string, body int32, visit int) bool {
	at := place{body, -1 - int32(visit)}
	if was := d.lookup(name); was.body != 0 {
		return was == at
	}
	l := label{}
	if IsLocalLabel(name) {
		l = d.of(name)
	}
	return d.define(l, name, at)
}

// find returns where a label was defined, or a place without a body.
func (d *foldLabels) find(l label, name string) place {
	if l.family == 0 {
		if len(d.named) == 0 {
			return place{}
		}
		return d.named[name]
	}
	if int(l.family) < len(d.numbered) {
		in, n := d.numbered[l.family], int(l.number)/len(page{})
		if n < len(in) && in[n] != nil {
			return in[n][int(l.number)%len(page{})]
		}
	}
	return place{}
}

// lookup is find for a symbol of any name.
func (d *foldLabels) lookup(name string) place {
	if IsLocalLabel(name) {
		return d.find(d.of(name), name)
	}
	return d.find(label{}, name)
}

// foldNames gives names their numbers.
type foldNames struct {
	table  *nameTable
	recent [1 << 12]int32 // some of the names, plus one, by length and end
}

// id returns the number of a name.
func (n *foldNames) id(name string) int32 {
	recent := &n.recent[n.hash(name)]
	if *recent > 0 && n.table.name(*recent-1) == name {
		return *recent - 1
	}
	id := n.table.number(name)
	*recent = id + 1
	return id
}

// hash returns the place in recent of a name, by its length and last bytes.
func (n *foldNames) hash(name string) uint64 {
	h := uint64(len(name))
	if len(name) >= 8 {
		h += word(name[len(name)-8:])
	} else {
		for i := range len(name) {
			h = h<<8 + uint64(name[i])
		}
	}
	return h * 0x9e3779b97f4a7c15 >> (64 - 12)
}
