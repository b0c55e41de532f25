package differ

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// functions pairs functions: the only ones with their stem, clones and lambdas
// by content, in which what they refer to counts as far as it is paired, or by
// who uses them, and then what is left if there is no choice. Others are new and
// removed, which is safe: whoever calls them calls something else than before and
// is carried.
func (c *correlation) functions(groups []*group) {
	var several []*group
	for _, g := range groups {
		switch {
		case len(g.a) == 1 && len(g.b) == 1:
			c.join(g.a[0], g.b[0])
		case len(g.a) > 0 && len(g.b) > 0:
			several = append(several, g)
		}
	}
	c.repeat(several, func(g *group) { c.settled(g, false) })
	c.byUsers(several)
	c.repeat(several, func(g *group) { c.settled(g, true) })
	for _, g := range several {
		if c.unsettle(g) {
			continue
		}
		as, bs := c.rest(g)
		if len(as) > 0 && len(bs) > 0 && !hasLambda(c.b.names[bs[0]]) {
			as, bs = c.byContent(as, bs, c.plainHash)
		}
		if len(as) == 1 && len(bs) == 1 && (!hasLambda(c.b.names[bs[0]]) || c.sameTurn(g, as[0], bs[0])) {
			c.join(as[0], bs[0])
		}
	}
}

// repeat calls f with all groups until it pairs nothing more.
func (c *correlation) repeat(groups []*group, f func(*group)) {
	for before := -1; before != c.joined; {
		before = c.joined
		for _, g := range groups {
			f(g)
		}
	}
}

// unsettle reports whether the code of folded functions of a group must be known
// because not all of the group are folded and paired with their namesakes. If all
// are, what they refer to is paired likewise, and their code would say the same.
func (c *correlation) unsettle(g *group) bool {
	all, folded := len(g.a) == len(g.b), []string(nil)
	for _, j := range g.b {
		i := c.b.pair[j]
		all = all && i != none && c.a.names[i] == c.b.names[j] && c.b.folded(j)
		if c.b.folded(j) {
			folded = append(folded, c.b.names[j])
		}
	}
	if !all {
		c.unsettled = append(c.unsettled, folded...)
	}
	return !all && len(folded) > 0
}

// rest returns the items of a group that have no pair.
func (c *correlation) rest(g *group) (as, bs []int32) {
	return c.a.free(slices.Clone(g.a)), c.b.free(slices.Clone(g.b))
}

// settled pairs functions of a group whose content is the same if all that they
// refer to is paired: if no others have that content, or else those of one
// name, as any would do. Of those that keep state in variables with rivals, none
// would: they are left out, unless state is set, which has those paired that are
// the only ones with their content.
func (c *correlation) settled(g *group, state bool) {
	type alike struct {
		items [2][]int32
		state bool
	}
	byHash := make(map[uint64]*alike)
	as, bs := c.rest(g)
	for k, list := range [...][]int32{as, bs} {
		for _, i := range list {
			s := [...]*side{c.a, c.b}[k]
			h, ok := c.settledHash(s, i)
			if !ok {
				continue
			}
			if byHash[h] == nil {
				byHash[h] = &alike{}
			}
			byHash[h].items[k] = append(byHash[h].items[k], i)
			byHash[h].state = byHash[h].state || c.stateful(s, i)
		}
	}
	for _, e := range byHash {
		only := len(e.items[0]) == 1 && len(e.items[1]) == 1
		if e.state && !(state && only) {
			continue
		}
		for _, i := range e.items[0] {
			for _, j := range e.items[1] {
				if c.a.pair[i] == none && c.b.pair[j] == none && (only || c.a.names[i] == c.b.names[j]) {
					c.join(i, j)
				}
			}
		}
	}
}

// stateful reports whether function i refers to a variable with rivals, which are
// told apart by the functions that use them.
func (c *correlation) stateful(s *side, i int32) (is bool) {
	s.weakHash(c.seed, i, func(name string) string {
		if id := s.Lookup(name); id >= 0 && s.Symbols[id].Where == asm.InItem {
			item := s.Symbols[id].Item
			is = is || s.roles[item] == object && !s.constant(item) && c.rival(s, item)
		}
		return ""
	})
	return is
}

// settledHash is weakHash for names that stand for what they are paired with,
// and labels that stand for the content there. It says whether all functions
// with numbers in their names are paired.
func (c *correlation) settledHash(s *side, i int32) (hash uint64, settled bool) {
	settled = true
	nested := int32(none) // the table that is being read
	var known func(name string) string
	known = func(name string) string {
		plain := plainName(name)
		if plain == name {
			return name
		}
		t := s.resolve(name)
		if t.where != asm.InItem || s.parent[t.item] == i {
			return plain
		}
		if s.roles[t.item] == content {
			if t.item == nested {
				return fmt.Sprintf("here+%d+%d", t.ord, t.add) // entries are distances
			}
			if nested != none {
				settled = false // tables of tables are not followed
				return plain
			}
			nested = t.item
			plain = fmt.Sprintf("%x+%d+%d", s.weakHash(c.seed, t.item, known), t.ord, t.add)
			nested = none
			return plain
		}
		if s.roles[t.item] != function || !t.entry() {
			return plain
		}
		to, paired := c.identity(s, t.item)
		if !paired {
			settled = false
			return plain
		}
		return fmt.Sprintf("=%d", to)
	}
	return s.weakHash(c.seed, i, known), settled
}

// sameTurn reports whether the functions x and y, whose names differ in the
// numbers of lambdas, come in the same turn among the lambdas of their group
// that are paired. If not, one came and the other went.
func (c *correlation) sameTurn(g *group, x, y int32) bool {
	for _, i := range g.a {
		if j := c.a.pair[i]; j != none && (c.a.byNumber(i, x) < 0) != (c.b.byNumber(j, y) < 0) {
			return false
		}
	}
	return true
}

// byNumber compares two names that differ in numbers only, none of which has
// zeros in front: _ comes before 0_, that before 10_.
func (s *side) byNumber(i, j int32) int {
	return cmp.Or(cmp.Compare(len(s.names[i]), len(s.names[j])), strings.Compare(s.names[i], s.names[j]))
}
