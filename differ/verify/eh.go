package verify

import (
	"bytes"
	"fmt"
	"slices"
)

// cursor reads DWARF numbers. After an error it reads zeros.
type cursor struct {
	data []byte
	at   int
	addr uint64 // link-time address of data
	bad  bool
}

func (c *cursor) here() uint64 { return c.addr + uint64(c.at) }

func (c *cursor) take(n int) []byte {
	if n < 0 || c.bad || n > len(c.data)-c.at {
		c.bad = true
		return make([]byte, 8)
	}
	c.at += n
	return c.data[c.at-n : c.at]
}

func (c *cursor) byte() byte { return c.take(1)[0] }

// leb reads a LEB128 number, a signed one if signed is set.
func (c *cursor) leb(signed bool) (v uint64) {
	for shift := uint(0); !c.bad && shift < 64; shift += 7 {
		b := c.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 != 0 {
			continue
		}
		if signed && b&0x40 != 0 && shift+7 < 64 {
			v |= ^uint64(0) << (shift + 7)
		}
		break
	}
	return v
}

// encoded reads a pointer. Source: LSB core, "DWARF Exception Header Encoding".
func (c *cursor) encoded(enc byte) uint64 {
	at, v := c.here(), uint64(0)
	switch enc & 0x0f {
	case 0x01:
		v = c.leb(false)
	case 0x03:
		v = uint64(le.Uint32(c.take(4)))
	case 0x0b:
		v = number(c.take(4)[:4])
	case 0x00, 0x04, 0x0c:
		v = le.Uint64(c.take(8))
	default:
		c.bad = true
	}
	if enc&0x70 == 0x10 && v != 0 {
		v += at
	} else if enc&0x70 != 0 && v != 0 {
		c.bad = true
	}
	return v
}

// cie is what is needed of a common information entry.
type cie struct {
	hasLSDA    bool
	code, lsda byte // encodings
}

// readFrames notes which functions have call frame information, without which
// no exception goes through them, and where the exception table of each is.
// Source: LSB core, "Exception Frames".
func (im *image) readFrames() {
	im.lsda, im.frames = map[uint64]uint64{}, map[uint64]bool{}
	for i := range im.secs {
		s := &im.secs[i]
		if s.name != ".eh_frame" || s.data == nil {
			continue
		}
		cies := map[int]cie{}
		c := &cursor{data: s.data, addr: s.lo}
		for !c.bad && c.at+8 <= len(c.data) {
			size := int(le.Uint32(c.take(4)))
			if size == 0 || size > len(c.data)-c.at || size < 4 {
				break
			}
			from := c.at
			e := &cursor{data: c.data[:c.at+size], at: c.at + 4, addr: c.addr}
			if id := int(le.Uint32(c.data[from:])); id == 0 {
				cies[from-4] = e.cie()
			} else if info, ok := cies[from-id]; ok {
				im.fde(e, info)
			}
			c.at += size
		}
	}
}

func (c *cursor) cie() (info cie) {
	version := c.byte()
	end := bytes.IndexByte(c.data[min(c.at, len(c.data)):], 0)
	if end < 0 {
		return info
	}
	aug := c.take(end)
	c.take(1)
	c.leb(false)
	c.leb(true)
	if version == 1 {
		c.byte()
	} else {
		c.leb(false)
	}
	if end == 0 || aug[0] != 'z' {
		return info
	}
	c.leb(false)
	for _, a := range aug[1:] {
		switch a {
		case 'R':
			info.code = c.byte()
		case 'L':
			info.lsda, info.hasLSDA = c.byte(), true
		case 'P':
			c.encoded(c.byte() & 0x7f)
		}
	}
	info.hasLSDA = info.hasLSDA && info.lsda != 0xff && !c.bad
	return info
}

func (im *image) fde(c *cursor, info cie) {
	start := c.encoded(info.code)
	c.encoded(info.code & 0x0f)
	im.frames[start] = im.frames[start] || !c.bad
	if !info.hasLSDA {
		return
	}
	c.leb(false)
	if table := c.encoded(info.lsda); !c.bad && table != 0 {
		im.lsda[start] = table
	}
}

// site is an entry of an exception table.
type site struct {
	start, end, pad uint64 // link-time addresses; pad is 0 for none
	// caught are the types by the order in which they are tried.
	caught []caught
}

type caught struct {
	filter int64 // 0 cleanup, positive a type, negative a specification
	typ    uint64
	// indirect is set if typ is the address of a word with the type's.
	indirect bool
}

// maxSites bounds an exception table.
const maxSites = 1 << 16

// sites reads the exception table of the function part that begins at start.
// base is where landing pads count from.
func (im *image) sites(table, start, base uint64) (list []site, ok bool) {
	s := im.section(table)
	if s == nil || s.data == nil {
		return nil, false
	}
	c := &cursor{data: s.data, at: int(table - s.lo), addr: s.lo}
	if enc := c.byte(); enc != 0xff {
		base = c.encoded(enc)
	}
	enc, types := c.byte(), 0
	if enc != 0xff {
		types = int(c.leb(false))
		types += c.at
	}
	call := c.byte()
	actions := int(c.leb(false))
	actions += c.at
	for c.at < actions && !c.bad && len(list) < maxSites {
		var e site
		e.start = start + c.encoded(call)
		e.end = e.start + c.encoded(call)
		if pad := c.encoded(call); pad != 0 {
			e.pad = base + pad
		}
		next := int(c.leb(false))
		for n := 0; next > 0 && n < 64 && !c.bad; n++ {
			a := &cursor{data: c.data, at: actions + next - 1, addr: c.addr, bad: actions+next-1 > len(c.data)}
			k := caught{filter: int64(a.leb(true))}
			if k.filter > 0 {
				k.typ, k.indirect = im.caughtType(c, types, enc, k.filter), enc&0x80 != 0
			}
			e.caught = append(e.caught, k)
			from := a.at
			jump := int(int64(a.leb(true)))
			if a.bad || jump == 0 {
				break
			}
			next = from + jump - actions + 1
		}
		list = append(list, e)
	}
	return list, !c.bad
}

// caughtType returns the entry of the type table, 0 for "everything".
func (im *image) caughtType(c *cursor, types int, enc byte, filter int64) uint64 {
	size := 4
	if enc&0x0f == 0 || enc&0x07 == 4 {
		size = 8
	}
	at := types - size*int(min(filter, maxSites))
	if at < 0 || at > len(c.data) {
		return 0
	}
	t := &cursor{data: c.data, at: at, addr: c.addr}
	return t.encoded(enc & 0x7f)
}

// typeInfo is the type that is caught.
func (im *image) typeInfo(k caught) place {
	to := im.place(k.typ)
	if k.indirect {
		to, _ = to.img.loaded(k.typ)
	}
	return to
}

// exceptions compares the exception tables of two functions.
func (w *walker) exceptions() *Difference {
	for i := range w.a.parts {
		a, b := w.a.parts[i].ent, w.b.parts[i].ent
		if d := w.exceptionTable(a, b); d != "" {
			return &Difference{Function: b.name(), Original: "has its exception table", Patched: d}
		}
	}
	return nil
}

func (w *walker) exceptionTable(a, b *entity) string {
	fa, fb := a.frame(), b.frame()
	if a.img.frames[fa] != b.img.frames[fb] {
		return "only one of the two has call frame information"
	}
	ta, oka := a.img.lsda[fa]
	tb, okb := b.img.lsda[fb]
	if !oka && !okb {
		return ""
	}
	if oka != okb {
		return "only one of the two has one"
	}
	sa, oka := a.img.sites(ta, fa, fa)
	sb, okb := b.img.sites(tb, fb, fb)
	if oka != okb || len(sa) != len(sb) {
		return fmt.Sprintf("has one with %d entries, not %d", len(sb), len(sa))
	}
	for i := range sa {
		x, y := &sa[i], &sb[i]
		if !w.sameSpot(x.start, y.start) || !w.sameSpot(x.end, y.end) || (x.pad == 0) != (y.pad == 0) || x.pad != 0 && !w.sameSpot(x.pad, y.pad) {
			return fmt.Sprintf("has one with another entry %d", i)
		}
		if len(x.caught) != len(y.caught) {
			return fmt.Sprintf("catches other types in entry %d", i)
		}
		for j, k := range x.caught {
			l := y.caught[j]
			same := (k.filter > 0) == (l.filter > 0) && (k.filter > 0 || k.filter == l.filter) && (k.typ == 0) == (l.typ == 0)
			if same && k.typ != 0 {
				same = w.same(a.img.typeInfo(k), b.img.typeInfo(l), 0, nil)
			}
			if !same {
				return fmt.Sprintf("catches %v in entry %d, not %v", b.img.typeInfo(l), i, a.img.typeInfo(k))
			}
		}
	}
	return ""
}

// frame returns where the call frame information of e begins: behind the no-ops at its
// entry, if -fpatchable-function-entry put them there.
func (e *entity) frame() uint64 {
	if v := e.img.lands(e.addr); !e.img.frames[e.addr] && v < e.end() && e.img.frames[v] {
		return v
	}
	return e.addr
}

// caught are the entries of e's exception table that have a landing pad.
func (e *entity) caught() []site {
	at := e.frame()
	table, ok := e.img.lsda[at]
	if !ok {
		return nil
	}
	all, _ := e.img.sites(table, at, at)
	return slices.DeleteFunc(all, func(s site) bool { return s.pad == 0 })
}

// sameSpot reports whether two addresses in two functions are at the same
// instruction.
func (w *walker) sameSpot(x, y uint64) bool {
	pa, na, ina, oka := w.a.find(x)
	pb, nb, inb, okb := w.b.find(y)
	return oka == okb && pa == pb && na == nb && ina == inb
}
