package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// data compares all pairs of objects.
func (r *Report) data() {
	for _, e := range r.c.right.objs {
		if e.content {
			continue
		}
		if len(e.pairs) == 0 {
			r.Data = append(r.Data, Datum{Name: e.name(), File: e.file(), Verdict: New, ReadOnly: !e.writable(), Users: names(e.usersOf()), right: e})
			continue
		}
		for _, o := range e.pairs {
			d := Datum{Name: e.name(), Original: o.name(), File: e.file(), ReadOnly: !o.writable(), left: o, right: e}
			if d.First = r.c.object(o, e); d.First != nil {
				d.Verdict, d.Users = Changed, names(e.usersOf())
			}
			r.Data = append(r.Data, d)
		}
	}
	for _, e := range r.c.left.objs {
		if len(e.pairs) == 0 && !e.content {
			r.Data = append(r.Data, Datum{
				Name: e.name(), Original: e.name(), File: e.file(), Verdict: Removed, ReadOnly: !e.writable(), Users: names(e.usersOf()), left: e,
			})
		}
	}
}

func (e *entity) writable() bool {
	s := e.img.section(e.addr)
	return s != nil && s.write && !e.indirection()
}

// indirection reports whether e is a word that only exception tables refer to:
// it holds the address of a type or personality routine for their encoding
// DW_EH_PE_indirect. Nothing writes to it but the dynamic linker, so that it
// does not matter which copy is used, nor where that is.
func (e *entity) indirection() bool {
	return !e.fn && e.size == 8 && strings.HasPrefix(e.name(), "DW.ref.") && len(e.usersOf()) == 0
}

func names(list []*entity) (all []string) {
	for _, e := range list {
		all = append(all, e.name())
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// object compares two objects.
func (c *comparison) object(a, b *entity) *Difference {
	if a.size != b.size {
		return &Difference{Function: b.name(), Original: fmt.Sprintf("has %d bytes", a.size), Patched: fmt.Sprintf("has %d bytes", b.size)}
	}
	sa, sb := a.img.section(a.addr), b.img.section(b.addr)
	if a.writable() != b.writable() {
		return &Difference{Function: b.name(), Original: "is in " + sa.name, Patched: "is in " + sb.name}
	}
	if sa.data == nil && sb.data == nil && len(c.left.relocs)+len(c.right.relocs) == 0 {
		return nil
	}
	x, y := place{img: a.img, addr: a.addr}, place{img: b.img, addr: b.addr}
	if at := c.objectDifference(x, y, a.size, sa.data == nil && sb.data == nil); at >= 0 {
		d := &Difference{Function: b.name(), OriginalOffset: uint64(at), PatchedOffset: uint64(at)}
		d.Original, d.Patched = c.describe(x, y, uint64(at))
		return d
	}
	return nil
}

// objectDifference is firstDifference in pieces, so that large objects without
// content need no memory.
func (c *comparison) objectDifference(x, y place, size uint64, empty bool) int64 {
	if empty { // it may be copied from another object
		rx, okx := x.img.relocs[x.addr]
		ry, oky := y.img.relocs[y.addr]
		if okx != oky || rx.sym != ry.sym || rx.kind != ry.kind {
			return 0
		}
		return -1
	}
	for at := uint64(0); at < size; at += maxContent {
		n := min(size-at, maxContent)
		if d := c.firstDifference(x.at(x.addr+at), y.at(y.addr+at), n, nil); d >= 0 {
			return int64(at) + d
		}
	}
	return -1
}

// called are the sections with functions that run before and after main.
// Source: gABI, "Initialization and Termination Functions".
var called = []string{".preinit_array", ".init_array", ".fini_array", ".ctors", ".dtors"}

// tables compares the tables of functions that the dynamic linker calls.
func (r *Report) tables() {
	list := func(im *image, name string) (all []place) {
		for i := range im.secs {
			s := &im.secs[i]
			if s.name != name && !strings.HasPrefix(s.name, name+".") {
				continue
			}
			for at := s.lo; at+8 <= s.hi; at += 8 {
				to, _ := im.loaded(at)
				all = append(all, to)
			}
		}
		return all
	}
	for _, name := range called {
		a, b := list(r.c.left, name), list(r.c.right, name)
		if len(a) == 0 && len(b) == 0 {
			continue
		}
		d := Datum{Name: name, Original: name}
		if d.First = r.c.entries(name, a, b); d.First != nil {
			d.Verdict = Changed
		}
		r.Data = append(r.Data, d)
	}
}

func (c *comparison) entries(name string, a, b []place) *Difference {
	for i := range max(len(a), len(b)) {
		d := &Difference{Function: name, OriginalOffset: 8 * uint64(i), PatchedOffset: 8 * uint64(i), Original: "ends", Patched: "ends"}
		if i < len(a) {
			d.Original = "has " + a[i].String()
		}
		if i < len(b) {
			d.Patched = "has " + b[i].String()
		}
		if i >= len(a) || i >= len(b) || !c.same(a[i], b[i], 0, nil) {
			return d
		}
	}
	return nil
}

// sortFindings orders findings by name.
func sortFindings(list []Finding) {
	slices.SortFunc(list, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Reason, b.Reason)) })
}
