package semantic

import (
	"debug/dwarf"
	"fmt"
	"slices"
	"strings"
)

// member is a field, bit-field or base class.
type member struct {
	r    ref
	name string
	n    int // of those without a name, the how manieth
}

// members are what an aggregate consists of, in order of declaration.
func (r ref) members() []member {
	var list []member
	nameless := 0
	for k := range r.t.children(r.i) {
		n := &r.t.nodes[k]
		m := member{r: ref{r.t, k}, name: n.name}
		switch {
		case n.tag == dwarf.TagInheritance:
			m.name = "(base " + m.r.typ().show(0) + ")"
		case n.tag != dwarf.TagMember || n.external || n.decl: // of the class, not of its objects
			continue
		case m.name == "":
			nameless++
			m.n = nameless
		}
		list = append(list, m)
	}
	return list
}

// canon is the type of a member, for a comparison.
func (m member) canon() string { return m.r.t.canonOf(m.r.i) }

// where writes the place of a member for a comparison.
func (m member) where() string {
	n := m.r.node()
	return fmt.Sprintf("%d/%d%s%t", max(n.at, 0), n.bits, n.expr, n.virtual)
}

// place says where a member is.
func (m member) place() string {
	n := m.r.node()
	at := max(n.at, 0)
	switch {
	case n.expr != "" || n.virtual:
		return "a place that is told at run time"
	case n.bits >= 0:
		return fmt.Sprintf("byte %d, bit %d", at/8, at%8)
	}
	return fmt.Sprintf("offset %d", at/8)
}

func (m member) title(prefix string) string {
	if m.name == "" {
		return fmt.Sprintf("the %sfield without a name %s", ordinal(m.n), prefix)
	}
	if m.r.node().tag == dwarf.TagInheritance {
		return m.name[1 : len(m.name)-1]
	}
	return "field " + prefix + m.name
}

func ordinal(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf("%d. ", n)
}

// detail is one part of a change.
type detail struct {
	text string
	// moves is set for a size or an offset: it may follow from another type.
	moves bool
}

func detailf(format string, args ...any) detail { return detail{text: fmt.Sprintf(format, args...)} }

func textsOf(details []detail) (texts []string) {
	for _, d := range details {
		texts = append(texts, d.text)
	}
	return texts
}

// layout returns how the layout of a type differs between the builds, nil if
// it does not.
func layout(x, y ref, prefix string, depth int) []detail {
	if x.node().tag == dwarf.TagEnumerationType && y.node().tag == dwarf.TagEnumerationType {
		return append(sizes(x, y), enumerators(x, y)...)
	}
	if x.node().tag == dwarf.TagUnionType != (y.node().tag == dwarf.TagUnionType) {
		return []detail{detailf("%sbecame %s", word(x.node().tag), word(y.node().tag))}
	}
	var out []detail
	old, now := x.members(), y.members()
	used := make([]bool, len(now))
	find := func(fits func(member) bool) (member, bool) {
		for k, m := range now {
			if !used[k] && fits(m) {
				used[k] = true
				return m, true
			}
		}
		return member{}, false
	}
	var lost []member
	for _, m := range old {
		if o, ok := find(func(o member) bool { return o.name == m.name && o.n == m.n }); ok {
			out = append(out, m.changes(o, prefix, depth)...)
		} else {
			lost = append(lost, m)
		}
	}
	for _, m := range lost {
		canon := m.canon()
		if _, ok := find(func(o member) bool { return o.where() == m.where() && o.canon() == canon }); !ok {
			out = append(out, detailf("%s: removed", m.title(prefix)))
		}
	}
	for k, m := range now {
		if !used[k] {
			out = append(out, detailf("%s: new, at %s", m.title(prefix), m.place()))
		}
	}
	if depth > 0 {
		return out
	}
	// What the author did stands before what came of it.
	out = append(sizes(x, y), out...)
	moved := func(d detail) bool { return d.moves }
	stays := slices.DeleteFunc(slices.Clone(out), moved)
	return append(stays, slices.DeleteFunc(out, func(d detail) bool { return !moved(d) })...)
}

// sizes compares the sizes of two types.
func sizes(x, y ref) (out []detail) {
	if a, b := x.node(), y.node(); a.size != b.size {
		out = append(out, detail{fmt.Sprintf("size %d became %d bytes", a.size, b.size), true})
	} else if a.align != b.align {
		out = append(out, detailf("alignment %d became %d bytes", a.align, b.align))
	}
	return out
}

// changes compares one member of both builds.
func (m member) changes(o member, prefix string, depth int) (out []detail) {
	a, b := m.r.node(), o.r.node()
	title := m.title(prefix)
	switch {
	case m.where() == o.where():
	case a.bits != b.bits:
		out = append(out, detailf("%s: %s became %s", title, width(a), width(b)))
	case m.place() != o.place():
		out = append(out, detail{fmt.Sprintf("%s: %s became %s", title, m.place(), strings.TrimPrefix(o.place(), "offset ")), true})
	default:
		out = append(out, detailf("%s: its place changed", title))
	}
	x, y := m.r.typ(), o.r.typ()
	if m.canon() == o.canon() {
		return out
	}
	px, py := x.plain(), y.plain()
	if nameless(px) && nameless(py) && depth < maxDepth {
		if m.name != "" {
			prefix += m.name + "."
		}
		if inner := layout(px, py, prefix, depth+1); len(inner) > 0 {
			return append(out, inner...)
		}
	}
	return append(out, detailf("%s: %s", title, became(x, y)))
}

func width(n *node) string {
	if n.bits < 0 {
		return "a whole field"
	}
	return fmt.Sprintf("%d bits", n.bits)
}

func nameless(r ref) bool { return r.t != nil && aggregate(r.node().tag) && r.t.key[r.i] == "" }

// became names two types that differ, with their sizes if that tells more.
func became(x, y ref) string {
	a, b := x.show(0), y.show(0)
	if a == b {
		if p, q := x.plain(), y.plain(); p.t != nil && q.t != nil && p.node().size != q.node().size {
			return fmt.Sprintf("%s of %d became one of %d bytes", a, p.node().size, q.node().size)
		}
		return "what " + a + " stands for changed"
	}
	return a + " became " + b
}

// enumerators compares the values of an enumeration. New ones change nothing of
// what exists.
func enumerators(x, y ref) (out []detail) {
	now, values := map[string]int64{}, map[int64]bool{}
	for k := range y.t.children(y.i) {
		if n := &y.t.nodes[k]; n.tag == dwarf.TagEnumerator {
			now[n.name], values[n.value] = n.value, true
		}
	}
	for k := range x.t.children(x.i) {
		n := &x.t.nodes[k]
		if n.tag != dwarf.TagEnumerator {
			continue
		}
		if v, ok := now[n.name]; ok && v != n.value {
			out = append(out, detailf("enumerator %s: %d became %d", n.name, n.value, v))
		} else if !ok && !values[n.value] {
			out = append(out, detailf("enumerator %s: removed", n.name))
		}
	}
	return out
}

// follows reports whether a type is another only because one that it holds is:
// its members are the same, but for their places.
func follows(x, y ref, details []detail) bool {
	if slices.ContainsFunc(details, func(d detail) bool { return !d.moves }) {
		return false
	}
	return slices.EqualFunc(x.members(), y.members(), func(m, o member) bool { return m.name == o.name && m.n == o.n })
}
