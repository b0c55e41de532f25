package verify

import (
	"fmt"
	"slices"
	"strconv"
)

// placeKind says what an address means.
type placeKind uint8

const (
	placeNumber placeKind = iota // it is none
	placeCode                    // ent+off
	placeData                    // ent+off
	placeImport                  // name+off
	placeAnon                    // something without a name
	placeGOT                     // a GOT entry
	placeLabel                   // a symbol that is neither function nor object
	placeTLS                     // name
)

// place is what an address means.
type place struct {
	kind placeKind
	img  *image
	addr uint64
	ent  *entity
	off  uint64
	name string
}

// place says what address v means.
func (im *image) place(v uint64) place {
	p := place{img: im, addr: v}
	if name, off, ok := im.imported(v); ok {
		p.kind, p.name, p.off = placeImport, name, off
		return p
	}
	s := im.section(v)
	switch {
	case s == nil && im.outer != nil && im.outer.inside(v):
		return im.outer.place(v)
	case s == nil:
		if names := im.labels[v]; len(names) > 0 {
			p.kind, p.name = placeLabel, names[0]
		}
	case s.plt:
		return im.stub(p)
	case s.got:
		p.kind = placeGOT
	case s.exec:
		if to, ok := im.veneers[v]; ok && im.veneers[to] == 0 {
			return im.place(to)
		}
		p.kind = placeAnon
		if e := within(im.funcs, v); e != nil {
			p.kind, p.ent, p.off = placeCode, e, v-e.addr
		}
	default:
		p.kind = placeAnon
		if e := within(im.objs, v); e != nil {
			p.kind, p.ent, p.off = placeData, e, v-e.addr
		} else if names := im.labels[v]; len(names) > 0 {
			p.kind, p.name = placeLabel, names[0]
		}
	}
	return p
}

// inside reports whether v is an address in the image, or right behind a
// section of it.
func (im *image) inside(v uint64) bool {
	return im.section(v) != nil || im.section(v-1) != nil || im.labels[v] != nil
}

// maxStub is the length in bytes of the longest PLT entry.
const maxStub = 32

// stub says what a jump to the PLT means.
func (im *image) stub(p place) place {
	slot, ok := im.isa.stub(im.bytes(p.addr, maxStub), p.addr)
	if !ok {
		p.kind = placeAnon
		return p
	}
	owner := im
	if im.section(slot) == nil && im.outer != nil {
		owner = im.outer
	}
	to, _ := owner.loaded(slot)
	return to
}

// loaded says what the word at address at means once the program runs, and
// whether it is an address at all.
func (im *image) loaded(at uint64) (place, bool) {
	if r, ok := im.relocs[at]; ok {
		return im.relocated(r), true
	}
	v, ok := im.word(at)
	if ok && im.fixed && im.plausible(v) {
		return im.place(v), true
	}
	return place{kind: placeNumber, img: im, addr: v}, false
}

// relocated says what a relocation makes of its place.
func (im *image) relocated(r dynReloc) place {
	p := place{img: im, addr: r.addend}
	switch r.kind {
	case relocRelative, relocIndirect:
		return im.place(r.addend)
	case relocTLS:
		p.kind, p.name, p.off = placeTLS, fmt.Sprintf("thread-local %s (relocation type %d)", r.sym, r.typ), r.addend
		if at := im.tls.at(r.addend); r.sym == "" && at != "" && r.typ != im.isa.tlsModule {
			p.name, p.off = p.name+at, 0
		}
	default:
		p.kind, p.name, p.off = placeImport, r.sym, r.addend
		if r.kind == relocCopy {
			p.name += " (copied)"
		}
	}
	return p
}

// String describes the place for a person.
func (p place) String() string {
	switch p.kind {
	case placeNumber:
		return "the number " + hex(p.addr)
	case placeCode, placeData:
		return plus(p.ent.name(), p.off)
	case placeImport:
		return plus("import "+p.name, p.off)
	case placeGOT:
		to, _ := p.img.loaded(p.addr)
		return "the GOT entry of " + to.String()
	case placeLabel, placeTLS:
		return plus(p.name, p.off)
	}
	b := p.img.bytes(p.addr, min(p.img.extent(p.addr), 80))
	if n := slices.Index(b, 0); n > 0 && text(b[:n]) {
		return "string " + strconv.Quote(string(b[:n]))
	} else if n < 0 && text(b) && len(b) > 0 {
		return "string " + strconv.Quote(string(b)) + "…"
	}
	s := p.img.section(p.addr)
	if s == nil {
		return "address " + hex(p.addr)
	}
	return fmt.Sprintf("%s+%#x (% x)", s.name, p.addr-s.lo, b[:min(len(b), 16)])
}

func hex(v uint64) string {
	if int64(v) < 0 {
		return fmt.Sprintf("-%#x", -v)
	}
	return fmt.Sprintf("%#x", v)
}

func plus(name string, off uint64) string {
	if off == 0 {
		return name
	}
	if int64(off) < 0 {
		return name + hex(off)
	}
	return name + "+" + hex(off)
}

// text reports whether b looks like text.
func text(b []byte) bool {
	for _, c := range b {
		if (c < 0x20 && (c < 7 || c > 13) && c != 0x1b) || c == 0x7f {
			return false
		}
	}
	return true
}
