package verify

import (
	"fmt"
	"slices"
)

// comparison holds the two sides and what was found out about them.
type comparison struct {
	left, right *image
	// literals are strings that sections of strings have, see [Compare].
	literals map[string]bool
	// tlsMoved is set if the variables of thread-local storage are not the same
	// or not in the same places.
	tlsMoved bool
	// seen are pairs of unnamed data that were found equal, or are being
	// compared.
	seen    map[anonPair]bool
	journal []anonPair // keys of seen, in order
	// bound are pairings of entities with unstable names that the function
	// being compared asks for.
	bound []binding
	// guesses are addresses of the function being compared that were taken for
	// one outside an object.
	guesses []guess
	matched map[*entity]bool
	// supported are the guesses of functions that were found same.
	supported []guess
	depth     int
}

type anonPair struct {
	a, b uint64
	size uint8
	left *image
}

type binding struct{ a, b *entity }

// guess is a pair of addresses in different objects, that is the same place if
// counted from near.
type guess struct {
	fa, fb *entity
	near   *entity
	oa, ob *entity // what lies there, nil if nothing with a name
	pa, pb place
}

// walker compares one function with another.
type walker struct {
	*comparison
	a, b *body
}

// walk compares two functions and returns the first difference, or nil.
func (c *comparison) walk(fa, fb *entity) *Difference {
	w := &walker{c, fa.img.decode(fa), fb.img.decode(fb)}
	c.bound, c.guesses, c.matched = c.bound[:0], c.guesses[:0], map[*entity]bool{}
	d := w.parts()
	if d == nil {
		d = c.support()
	}
	if d != nil {
		c.unbind()
		return d
	}
	c.supported = append(c.supported, c.guesses...)
	return nil
}

func (w *walker) parts() *Difference {
	for i := range min(len(w.a.parts), len(w.b.parts)) {
		if d := w.part(&w.a.parts[i], &w.b.parts[i]); d != nil {
			return d
		}
	}
	switch na, nb := len(w.a.parts), len(w.b.parts); {
	case na > nb:
		return &Difference{Function: w.a.parts[nb].ent.name(), Original: "has a cold part", Patched: "has none"}
	case na < nb:
		return &Difference{Function: w.b.parts[na].ent.name(), Original: "has no cold part", Patched: "has one"}
	}
	return w.exceptions()
}

func (w *walker) part(a, b *part) *Difference {
	for i := 0; i < len(a.code) && i < len(b.code); i++ {
		x, y := &a.code[i], &b.code[i]
		if what := w.insn(a, b, x, y); what != nil {
			what.Function = b.ent.name()
			what.OriginalOffset, what.PatchedOffset = x.addr-a.ent.addr, y.addr-b.ent.addr
			return what
		}
		if i > 0 && x.pad != y.pad && !padding(x) && a.code[i-1].flow != flowStop && b.code[i-1].flow != flowStop ||
			i > 0 && x.pad != y.pad && !padding(y) && a.code[i-1].flow != flowStop && b.code[i-1].flow != flowStop || i == 0 && x.pad != y.pad {
			return &Difference{
				Function: b.ent.name(), OriginalOffset: x.addr - a.ent.addr, PatchedOffset: y.addr - b.ent.addr,
				Original: fmt.Sprintf("%d bytes of no-ops", x.pad), Patched: fmt.Sprintf("%d bytes of no-ops", y.pad),
			}
		}
	}
	if len(a.code) == len(b.code) {
		return nil
	}
	d := &Difference{Function: b.ent.name(), OriginalOffset: a.ent.size, PatchedOffset: b.ent.size, Original: "ends", Patched: "ends"}
	if n := len(b.code); len(a.code) > n {
		d.OriginalOffset, d.Original = a.code[n].addr-a.ent.addr, "goes on with "+w.show(a.ent.img, &a.code[n])
	} else {
		n = len(a.code)
		d.PatchedOffset, d.Patched = b.code[n].addr-b.ent.addr, "goes on with "+w.show(b.ent.img, &b.code[n])
	}
	return d
}

// padding reports whether the no-ops before an instruction may be there to
// align it.
func padding(in *insn) bool { return in.pad == 0 || in.pad < 64 && in.addr%8 == 0 }

// insn compares two instructions.
func (w *walker) insn(a, b *part, x, y *insn) *Difference {
	ia, ib := a.ent.img, b.ent.img
	sx, sy := x.shape, y.shape
	var px, py [2]operand
	for i := range px {
		px[i], py[i] = ia.operand(x, i), ib.operand(y, i)
	}
	if px[0].direct {
		sx = ia.isa.direct(x)
	}
	if py[0].direct {
		sy = ib.isa.direct(y)
	}
	if sx != sy || x.refs != y.refs {
		return &Difference{Original: w.show(ia, x), Patched: w.show(ib, y)}
	}
	for i := range x.refs {
		if w.operand(px[i], py[i]) || px[i].place.expression(py[i].place, x, y, i) {
			continue
		}
		return &Difference{
			Original: fmt.Sprintf("%s, which is %s", w.show(ia, x), px[i].place),
			Patched:  fmt.Sprintf("%s, which is %s", w.show(ib, y), py[i].place),
		}
	}
	return nil
}

// expression reports whether operand i of two instructions, with the places p and q,
// is not an address but a distance that both builds have an absolute symbol for:
// what the assembler makes of the address of a symbol that is set to an
// expression, in code that counts from its own place. Where it leads to means
// nothing, unless something begins there.
func (p place) expression(q place, x, y *insn, i uint8) bool {
	distance := x.ref[i].value - x.end()
	if x.ref[i].use != useTake || y.ref[i].use != useTake || distance != y.ref[i].value-y.end() || !p.odd() || !q.odd() {
		return false
	}
	return slices.ContainsFunc(p.img.numbers[distance], func(name string) bool { return slices.Contains(q.img.numbers[distance], name) })
}

func (w *walker) show(im *image, in *insn) string {
	code := im.bytes(in.addr, uint64(in.size))
	return im.isa.text(code, in.addr)
}

// operand is what an instruction refers to.
type operand struct {
	use    use
	size   uint8
	direct bool // the GOT is not gone through, or was seen through
	place  place
}

// operand says what operand i of an instruction means.
func (im *image) operand(in *insn, i int) operand {
	if i >= int(in.refs) {
		return operand{}
	}
	r := in.ref[i]
	o := operand{use: r.use, size: r.size}
	switch r.use {
	case useTLS:
		o.place = place{kind: placeNumber, img: im, addr: r.value}
		if name := im.tls.at(im.isa.tpOffset(&im.tls, r.value)); name != "" {
			o.place.kind, o.place.name = placeTLS, name
		}
		return o
	case useMaybe:
		o.place = place{kind: placeNumber, img: im, addr: r.value}
		if im.tls.end != 0 && r.value == -im.tls.end {
			o.place.kind, o.place.name = placeTLS, "a thread-local variable that is not defined"
		} else if im.absolute() && im.plausible(r.value) {
			o.place = im.place(r.value)
			if o.direct = in.via && !o.place.odd(); o.direct {
				o.use = useTake
			}
		}
		return o
	}
	o.place = im.place(r.value)
	if o.place.kind == placeGOT && !in.via {
		o.place = o.place.img.tlsSlot(o.place, in.generalTLS())
	} else if in.via && i == 0 && o.place.kind == placeGOT {
		if to, ok := o.place.img.loaded(r.value); ok {
			o.place, o.direct, o.use, o.size = to, true, useTake, 0
		}
	}
	return o
}

// tlsSlot says what a pair of GOT entries for thread-local storage means: the
// variable in the general model, all variables in the local one.
func (im *image) tlsSlot(p place, general bool) place {
	r, ok := im.relocs[p.addr]
	if !ok || r.kind != relocTLS || r.typ != im.isa.tlsModule || r.sym != "" {
		return p
	}
	p.kind, p.name = placeTLS, "the object's thread-local storage"
	if v, _ := im.word(p.addr + 8); general {
		p.name = im.tls.at(v)
	}
	return p
}

// operand compares what two operands refer to.
func (w *walker) operand(x, y operand) bool {
	if are, same := w.offsetsTLS(x, y); are {
		return same
	}
	if are, same := w.constants(x, y); are {
		return same
	}
	if ax, ay := w.a.holds(x.place), w.b.holds(y.place); ax || ay {
		pa, na, ina, _ := w.a.find(x.place.addr)
		pb, nb, inb, _ := w.b.find(y.place.addr)
		if ax && ay && pa == pb && na == nb && ina == inb {
			return true
		}
		// The address of a patched function is the original's.
		if ax != ay && x.place.kind == placeCode && y.place.kind == placeCode && x.place.off == 0 && y.place.off == 0 && w.paired(x.place.ent, y.place.ent) {
			return true
		}
		return w.sameNumber(x, y)
	}
	if w.same(x.place, y.place, max(x.size, y.size), w) || x.use == useBranch && y.use == useBranch && w.ends(x.place, y.place) {
		return true
	}
	return w.guess(x, y) || w.sameNumber(x, y)
}

// offsetsTLS compares numbers that may be offsets in thread-local storage,
// added to an address that came from elsewhere. It says whether they are.
func (w *walker) offsetsTLS(x, y operand) (are, same bool) {
	if !w.tlsMoved || x.use != useMaybe || x.place.kind != placeNumber || y.place.kind != placeNumber || !w.a.threads() || !w.b.threads() {
		return false, false
	}
	fromTP := func(p place) string { return p.img.tls.at(p.img.isa.tpOffset(&p.img.tls, p.addr)) }
	a, b := fromTP(x.place), fromTP(y.place)
	if a == "" && b == "" {
		a, b = x.place.img.tls.at(x.place.addr), y.place.img.tls.at(y.place.addr)
	}
	return a != "" && b != "", a == b
}

// threads reports whether a function uses thread-local storage. Offsets above
// the thread pointer are the C library's own.
func (b *body) threads() bool {
	if b.tls != 0 {
		return b.tls > 0
	}
	b.tls = -1
	for _, p := range b.parts {
		for i := range p.code {
			for _, r := range p.code[i].ref[:p.code[i].refs] {
				if r.use == useTLS && int64(r.value) <= 0 || r.use != useMaybe && p.ent.img.threadSlot(r.value) {
					b.tls = 1
				}
			}
		}
	}
	return b.tls > 0
}

// threadSlot reports whether v is the address of a GOT entry for thread-local
// storage.
func (im *image) threadSlot(v uint64) bool {
	return im.relocs[v].kind == relocTLS || im.outer != nil && im.outer.threadSlot(v)
}

// sameNumber: what may be an address, but points into the middle of code, is a
// number.
func (w *walker) sameNumber(x, y operand) bool {
	if x.use != useMaybe || y.use != useMaybe || x.place.addr != y.place.addr {
		return false
	}
	return x.place.odd() && y.place.odd()
}

// odd reports whether no program points there.
func (p place) odd() bool {
	return p.kind == placeNumber || p.kind == placeCode && p.off != 0 || p.kind == placeAnon && p.img.section(p.addr) != nil && p.img.section(p.addr).exec
}

// holds reports whether a place is in the function's own code.
func (b *body) holds(p place) bool {
	if p.kind != placeCode {
		return false
	}
	for i := range b.parts {
		if b.parts[i].ent == p.ent {
			return true
		}
	}
	return false
}

// guess tries whether two addresses are the same place near one object. Code
// that only takes an address may mean the end of an object, though another
// begins there, or what is before its first element.
func (w *walker) guess(x, y operand) bool {
	if x.use != useTake && x.use != useMaybe || x.use != y.use || !x.place.data() || !y.place.data() {
		return false
	}
	ia, ib := x.place.img, y.place.img
	for _, near := range neighbours(ia, x.place.addr) {
		for _, other := range near.pairs {
			if other.img == ib && x.place.addr-near.addr == y.place.addr-other.addr && other.size == near.size {
				w.guesses = append(w.guesses, guess{
					fa: w.a.parts[0].ent, fb: w.b.parts[0].ent, near: near, oa: x.place.ent, ob: y.place.ent, pa: x.place, pb: y.place,
				})
				return true
			}
		}
	}
	return false
}

// ends reports whether two places are the ends of the same part of both
// functions, where no other function begins: code that never gets there may
// jump there.
func (w *walker) ends(x, y place) bool {
	for i := range min(len(w.a.parts), len(w.b.parts)) {
		if x.addr == w.a.parts[i].ent.end() && y.addr == w.b.parts[i].ent.end() {
			return x.kind != placeCode && y.kind != placeCode
		}
	}
	return false
}

// data reports whether a place may be next to an object.
func (p place) data() bool {
	return p.kind == placeData || p.kind == placeAnon || p.kind == placeLabel
}

// maxOutside is how far outside an object code may point, in bytes.
const maxOutside = 4096

// neighbours returns objects that lie near v, but not around it.
func neighbours(im *image, v uint64) (list []*entity) {
	i, _ := searchEntity(im.objs, v)
	for j := i - 1; j >= 0 && j >= i-4; j-- {
		if e := im.objs[j]; e.end() <= v && v-e.end() < maxOutside {
			list = append(list, e)
		}
	}
	for j := i; j < len(im.objs) && j < i+4; j++ {
		if e := im.objs[j]; e.addr > v && e.addr-v < maxOutside {
			list = append(list, e)
		}
	}
	return list
}
