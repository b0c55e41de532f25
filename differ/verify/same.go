package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxContent bounds how much unnamed data is compared, in bytes; maxDepth how
// far pointers are followed from one piece to the next.
const (
	maxContent = 1 << 20
	maxDepth   = 16
)

func searchEntity(list []*entity, v uint64) (int, bool) {
	return slices.BinarySearchFunc(list, v, func(e *entity, v uint64) int { return cmp.Compare(e.addr, v) })
}

// same reports whether two places mean the same. size is the number of bytes
// that are accessed there, 0 if not known. w is the function that refers to
// them, or nil.
func (c *comparison) same(x, y place, size uint8, w *walker) bool {
	if x.kind != y.kind {
		return c.sameMixed(x, y, size, w)
	}
	switch x.kind {
	case placeNumber:
		return x.addr == y.addr
	case placeCode:
		return c.sameCode(x, y)
	case placeData:
		if x.off == y.off && c.paired(x.ent, y.ent) {
			c.match(x.ent)
			return true
		}
		if x.ent.content && y.ent.content && x.ent.size-x.off == y.ent.size-y.off {
			return x.off == y.off && x.ent.size == y.ent.size && c.anon(x.at(x.ent.addr), y.at(y.ent.addr), x.ent.size, w)
		}
		return sharedLabel(x, y)
	case placeImport, placeTLS:
		return x.name == y.name && x.off == y.off
	case placeGOT:
		return c.sameWord(x.img, x.addr, y.img, y.addr, w)
	case placeLabel:
		return sharedLabel(x, y)
	}
	return c.sameAnon(x, y, size, w)
}

// at is the place of an address nearby.
func (p place) at(addr uint64) place {
	p.addr = addr
	return p
}

// sameMixed compares places of different kinds.
func (c *comparison) sameMixed(x, y place, size uint8, w *walker) bool {
	named := func(im, def place) bool {
		name, _, _ := strings.Cut(im.name, "@")
		return im.off == def.off && slices.ContainsFunc(def.ent.names, func(n symName) bool { return !n.local && n.name == name })
	}
	definition := func(p place) bool { return p.kind == placeCode || p.kind == placeData }
	switch {
	case x.kind == placeImport && definition(y):
		return named(x, y)
	case y.kind == placeImport && definition(x):
		return named(y, x)
	case x.kind == placeData && x.ent.content && y.kind == placeAnon:
		return x.off == 0 && c.anon(x, y, x.ent.size, w)
	case y.kind == placeData && y.ent.content && x.kind == placeAnon:
		return y.off == 0 && c.anon(x, y, y.ent.size, w)
	case x.kind == placeNumber || y.kind == placeNumber:
		return false
	}
	return sharedLabel(x, y)
}

// sharedLabel reports whether a symbol without a type or size is at both
// places.
func sharedLabel(x, y place) bool {
	for _, name := range x.img.labels[x.addr] {
		if slices.Contains(y.img.labels[y.addr], name) {
			return true
		}
	}
	return false
}

// sameCode compares places in code that are not in the function that refers
// to them.
func (c *comparison) sameCode(x, y place) bool {
	if x.ent.parent != nil && y.ent.parent != nil {
		return slices.Index(x.ent.parent.cold, x.ent) == slices.Index(y.ent.parent.cold, y.ent) &&
			c.paired(x.ent.parent, y.ent.parent) && c.sameOffset(x, y)
	}
	return c.paired(x.ent, y.ent) && c.sameOffset(x, y)
}

// sameOffset compares offsets in two functions by instruction.
func (c *comparison) sameOffset(x, y place) bool {
	if x.off == 0 && y.off == 0 {
		return true
	}
	if x.off == 0 || y.off == 0 {
		return false
	}
	pa, na, ina, oka := x.img.body(x.ent).find(x.addr)
	pb, nb, inb, okb := y.img.body(y.ent).find(y.addr)
	return oka && okb && pa == pb && na == nb && ina == inb
}

// body returns the code of one range, which it keeps.
func (im *image) body(e *entity) *body {
	b := im.bodies[e]
	if b == nil {
		b = &body{parts: []part{{e, im.decodePart(nil, e)}}}
		im.bodies[e] = b
	}
	return b
}

// paired reports whether two entities are the same thing in both builds. Those
// whose names have numbers are paired by the first function that is otherwise
// the same.
func (c *comparison) paired(a, b *entity) bool {
	if slices.Contains(a.pairs, b) {
		return true
	}
	return c.bind(a, b)
}

func (c *comparison) bind(a, b *entity) bool {
	if a.fn || b.fn || a.content || b.content || len(a.pairs) > 0 || len(b.pairs) > 0 || a.size != b.size {
		return false
	}
	fa, ua := family(a.name())
	fb, ub := family(b.name())
	if fa != fb || !ua || !ub || a.names[0].file != b.names[0].file {
		return false
	}
	c.pair(a, b)
	a.mangled = true
	c.bound = append(c.bound, binding{a, b})
	return true
}

func (c *comparison) pair(a, b *entity) {
	if !slices.Contains(a.pairs, b) {
		a.pairs = append(a.pairs, b)
	}
	if !slices.Contains(b.pairs, a) {
		b.pairs = append(b.pairs, a)
	}
}

// unbind takes back the pairings of a function that is not the same.
func (c *comparison) unbind() {
	for _, p := range c.bound {
		p.a.pairs = slices.DeleteFunc(p.a.pairs, func(e *entity) bool { return e == p.b })
		p.b.pairs = slices.DeleteFunc(p.b.pairs, func(e *entity) bool { return e == p.a })
	}
	c.bound = c.bound[:0]
}

func (c *comparison) match(e *entity) {
	if c.matched != nil {
		c.matched[e] = true
	}
}

// support returns a difference if a guess of the function is not supported by
// another operand of it.
func (c *comparison) support() *Difference {
	for _, g := range c.guesses {
		if !c.matched[g.near] {
			return &Difference{Function: g.fb.name(), Original: "refers to " + g.pa.String(), Patched: "refers to " + g.pb.String()}
		}
	}
	return nil
}

// sameWord compares the words at two addresses by what they mean.
func (c *comparison) sameWord(ia *image, a uint64, ib *image, b uint64, w *walker) bool {
	x, okx := ia.loaded(a)
	y, oky := ib.loaded(b)
	number := plainWord(ia, a, ib, b, x.odd() && y.odd())
	if okx != oky {
		return number
	}
	if !okx {
		return x.addr == y.addr
	}
	if w != nil && w.a.holds(x) && w.b.holds(y) {
		return w.operand(operand{place: x}, operand{place: y})
	}
	return c.same(x, y, 0, w) || number
}

// plainWord reports whether the words at two addresses are one number. Where
// relocations say on one side what is an address, a word without one is none on
// the other side either, though it may look so; else odd says that it is none.
func plainWord(ia *image, a uint64, ib *image, b uint64, odd bool) bool {
	_, rx := ia.relocs[a]
	_, ry := ib.relocs[b]
	na, oka := ia.word(a)
	nb, okb := ib.word(b)
	return !rx && !ry && oka && okb && na == nb && (ia.fixed != ib.fixed || ia.fixed && odd)
}

// pointers reports whether one of two words may be an address.
func pointers(x, y place) bool {
	return (x.img.pointer(x.addr) || y.img.pointer(y.addr)) && !plainWord(x.img, x.addr, y.img, y.addr, false)
}

// sameAnon compares two places without a name by what is there.
func (c *comparison) sameAnon(x, y place, size uint8, w *walker) bool {
	sx, sy := x.img.section(x.addr), y.img.section(y.addr)
	if sx == nil || sy == nil || sx.exec != sy.exec || sx.write != sy.write {
		return false
	}
	if sx.exec {
		return sx.name == sy.name && x.addr-sx.lo == y.addr-sy.lo
	}
	if sx.data == nil || sy.data == nil || sx.write {
		return sx.name == sy.name && c.sameDistance(x, y)
	}
	if c.depth > 0 {
		w = nil // jump tables are not behind pointers
	}
	k := anonPair{x.addr, y.addr, size, x.img}
	if done, ok := c.seen[k]; ok && w == nil {
		return done
	}
	if c.depth >= maxDepth {
		return false
	}
	from := len(c.journal)
	c.journal = append(c.journal, k)
	c.seen[k] = true
	c.depth++
	ok := c.sameContent(x, y, size, w)
	c.depth--
	if !ok {
		// What was found equal on the way may have counted on this.
		for _, k := range c.journal[from:] {
			delete(c.seen, k)
		}
		c.journal = c.journal[:from]
	}
	if w == nil {
		c.seen[k] = ok
	} else {
		delete(c.seen, k)
	}
	return ok
}

// sameDistance compares places in writable memory by how far they are from the
// object before them, or from the start of the section.
func (c *comparison) sameDistance(x, y place) bool {
	before := func(p place) (*entity, uint64) {
		s := p.img.section(p.addr)
		if i, _ := searchEntity(p.img.objs, p.addr); i > 0 && p.img.objs[i-1].addr >= s.lo {
			return p.img.objs[i-1], p.addr - p.img.objs[i-1].addr
		}
		return nil, p.addr - s.lo
	}
	ea, da := before(x)
	eb, db := before(y)
	return da == db && (ea == nil && eb == nil || ea != nil && eb != nil && c.paired(ea, eb))
}

// sameContent compares two unnamed constants.
func (c *comparison) sameContent(x, y place, size uint8, w *walker) bool {
	if size > 0 {
		return c.anon(x, y, uint64(size), w)
	}
	if w != nil {
		if table, same := w.table(x, y); table {
			return same
		}
		if c.distances(x, y) {
			return true
		}
	}
	la, lb := min(x.img.extent(x.addr), maxContent), min(y.img.extent(y.addr), maxContent)
	n := min(la, lb)
	ba, bb := x.img.bytes(x.addr, maxContent), y.img.bytes(y.addr, maxContent)
	if zero := bytes.IndexByte(ba, 0); zero > 0 && text(ba[:zero]) && !pointers(x, y) {
		if uint64(len(bb)) <= uint64(zero) || !bytes.Equal(ba[:zero+1], bb[:zero+1]) {
			return false
		}
		return n <= uint64(zero) || c.anon(x, y, n, w) || c.literal(x, zero, n) && c.literal(y, zero, n)
	}
	rest := zeros(ba[n:max(n, la)]) && zeros(bb[n:max(n, lb)]) || !pointers(x, y) && sameEnd(x, y)
	return rest && c.anon(x, y, n, w)
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// anon compares n bytes of content.
func (c *comparison) anon(x, y place, n uint64, w *walker) bool {
	return c.firstDifference(x, y, n, w) < 0
}

// firstDifference returns the offset of the first of n bytes at two places
// that differ in what they mean, or -1.
func (c *comparison) firstDifference(x, y place, n uint64, w *walker) int64 {
	ba, bb := x.img.bytes(x.addr, n), y.img.bytes(y.addr, n)
	if uint64(len(ba)) < n || uint64(len(bb)) < n {
		return int64(min(len(ba), len(bb)))
	}
	for i := uint64(0); i < n; {
		if n-i >= 8 && (x.img.pointer(x.addr+i) || y.img.pointer(y.addr+i)) {
			if !c.sameWord(x.img, x.addr+i, y.img, y.addr+i, w) {
				return int64(i)
			}
			i += 8
			continue
		}
		if ba[i] != bb[i] {
			return int64(i)
		}
		i++
	}
	return -1
}

// pointer reports whether the word at v is an address once the program runs.
func (im *image) pointer(v uint64) bool {
	if _, ok := im.relocs[v]; ok {
		return true
	}
	if !im.fixed || v%8 != 0 {
		return false
	}
	n, ok := im.word(v)
	return ok && im.plausible(n)
}

// table compares two jump tables whose entries are offsets of 4 bytes from the
// table's start. It says whether both are ones at all.
func (w *walker) table(x, y place) (isTable, same bool) {
	ea, eb := w.entries(w.a, x), w.entries(w.b, y)
	if len(ea) == 0 || len(eb) == 0 {
		return false, false
	}
	if len(ea) != len(eb) {
		return true, false
	}
	for i := range ea {
		pa, na, ina, _ := w.a.find(ea[i])
		pb, nb, inb, _ := w.b.find(eb[i])
		if pa != pb || na != nb || ina != inb {
			return true, false
		}
	}
	return true, true
}

// distances reports whether two tables hold the distances, of 4 bytes each, from
// the table's start to strings elsewhere that are the same: what clang makes of
// a switch that returns strings. Small numbers, such as the characters of a wide
// string, are no distances: they lead into the table.
func (c *comparison) distances(x, y place) bool {
	n := x.img.extent(x.addr)
	if n != y.img.extent(y.addr) || n == 0 || n%4 != 0 || n > maxContent || x.addr%4 != 0 || y.addr%4 != 0 {
		return false
	}
	da, db := x.img.bytes(x.addr, n), y.img.bytes(y.addr, n)
	for len(da) >= 4 && len(db) >= 4 {
		to, other := x.img.place(x.addr+number(da[:4])), y.img.place(y.addr+number(db[:4]))
		if to.addr-x.addr < n || other.addr-y.addr < n || !to.beginsText() || !other.beginsText() || !c.sameAnon(to, other, 0, nil) {
			return false
		}
		da, db = da[4:], db[4:]
	}
	return len(da) == 0 && len(db) == 0
}

// beginsText reports whether a string without a name begins at p.
func (p place) beginsText() bool {
	if p.kind != placeAnon {
		return false
	}
	s := p.img.section(p.addr)
	if s == nil || s.exec || s.write {
		return false
	}
	if before := p.img.bytes(p.addr-1, 1); p.addr > s.lo && (len(before) == 0 || before[0] != 0) {
		return false
	}
	b := p.img.bytes(p.addr, maxContent)
	end := bytes.IndexByte(b, 0)
	return end > 0 && text(b[:end])
}

// entries returns the addresses in the function that a table at p leads to.
func (w *walker) entries(b *body, p place) (list []uint64) {
	if p.addr%4 != 0 {
		return nil
	}
	data := p.img.bytes(p.addr, min(p.img.extent(p.addr), maxContent))
	for ; len(data) >= 4; data = data[4:] {
		v := p.addr + uint64(int64(int32(le.Uint32(data))))
		if _, _, _, ok := b.find(v); !ok {
			break
		}
		list = append(list, v)
	}
	return list
}

// describe says where in an object two contents differ.
func (c *comparison) describe(x, y place, at uint64) (string, string) {
	show := func(p place) string {
		if p.img.pointer(p.addr + at) {
			to, _ := p.img.loaded(p.addr + at)
			return "points to " + to.String()
		}
		return fmt.Sprintf("has % x", p.img.bytes(p.addr+at, 8))
	}
	return show(x), show(y)
}
