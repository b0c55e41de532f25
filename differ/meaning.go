package differ

import (
	"strconv"

	"github.com/fother/fother/differ/asm"
)

// maxShown bounds what is shown of data without a name, in bytes.
const maxShown = 60

// meaning tells what differs in two statements of items i and j that have the
// same text.
func (c *comparer) meaning(i, j int32, sa, sb asm.Stmt) string {
	text := c.a.TextOf(sa)
	for _, r := range c.a.Dialect.Refs(nil, sa.Kind, text) {
		name := r.Name(text)
		x, y := c.a.resolve(name), c.b.resolve(name)
		if !c.refer(i, j, x, y) {
			return became(name, c.a.describe(x), c.b.describe(y))
		}
	}
	pa, pb := c.a.Bound[sa.Lo], c.b.Bound[sb.Lo]
	for k := range min(len(pa), len(pb)) {
		if x, y := c.a.describePlace(pa[k]), c.b.describePlace(pb[k]); x != y {
			return became("a numeric label", x, y)
		}
	}
	if len(pa)+len(pb) > 0 {
		return "a numeric label stands for another place"
	}
	return ""
}

// became says what a name stands for in the two builds.
func became(name, was, is string) string {
	if was == is {
		return name + " is not the same in both builds"
	}
	return name + " was " + was + " and is " + is
}

// describe says what t is.
func (s *side) describe(t target) string {
	switch t.where {
	case asm.InItem:
		return s.describePlace(asm.Place{Item: t.item, Ord: t.ord})
	case asm.Undefined:
		return "outside the unit"
	case asm.Absolute:
		return strconv.FormatInt(t.add, 10)
	}
	if t.sym != none && s.Symbols[t.sym].Set != "" {
		return s.Symbols[t.sym].Set
	}
	return "a place in none of its functions or objects"
}

// describePlace says which place that is.
func (s *side) describePlace(at asm.Place) string {
	switch {
	case at.Item < 0:
		return "a place in none of its functions or objects"
	case s.names[at.Item] == "" && at.Ord == 0:
		for _, st := range s.Items[at.Item].Stmts {
			if text := s.TextOf(st); st.Kind.Bytes() {
				return strconv.Quote(text[:min(len(text), maxShown)])
			}
		}
		return "data in " + s.SectionOf(at.Item).Name
	case s.names[at.Item] == "":
		return "a place in " + s.SectionOf(at.Item).Name
	case at.Ord != 0:
		return "a place in " + s.names[at.Item]
	}
	return s.names[at.Item]
}
