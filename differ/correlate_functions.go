package differ

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// functions pairs functions: the only ones with their stem, clones and lambdas
// by content, in which what they refer to counts as far as it is paired, and
// then what is left if there is no choice. Others are new and removed, which is
// safe: whoever calls them calls something else than before and is carried.
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
	for range maxDepth {
		before := c.paired
		for _, g := range several {
			if as, bs := c.rest(g); len(as) > 0 && len(bs) > 0 {
				as, bs = c.byContent(as, bs, func(s *side, i int32) uint64 { h, _ := c.settledHash(s, i); return h })
				c.alike(as, bs)
			}
		}
		if c.paired == before {
			break
		}
	}
	for _, g := range several {
		if as, bs := c.rest(g); len(as) == 1 && len(bs) == 1 && (!hasLambda(c.b.names[bs[0]]) || c.sameTurn(g, as[0], bs[0])) {
			c.join(as[0], bs[0])
		}
	}
}

// rest returns the items of a group that have no pair.
func (c *correlation) rest(g *group) (as, bs []int32) {
	return c.a.free(slices.Clone(g.a)), c.b.free(slices.Clone(g.b))
}

// alike pairs functions of one content that have the same name too, if all
// that they refer to is paired: any of them would do.
func (c *correlation) alike(as, bs []int32) {
	byName := make(map[string]int32)
	for _, i := range as {
		byName[c.a.names[i]] = i
	}
	for _, j := range bs {
		i, ok := byName[c.b.names[j]]
		if !ok || c.a.pair[i] != none {
			continue
		}
		x, okx := c.settledHash(c.a, i)
		y, oky := c.settledHash(c.b, j)
		if okx && oky && x == y {
			c.join(i, j)
		}
	}
}

// settledHash is weakHash for names that stand for what they are paired with.
// It says whether all functions with numbers in their names are.
func (c *correlation) settledHash(s *side, i int32) (hash uint64, settled bool) {
	settled = true
	hash = s.weakHash(c.seed, i, func(name string) string {
		plain := stem(name)
		if plain == name {
			return name
		}
		t := s.resolve(name)
		if t.where != asm.InItem || !t.entry() || s.roles[t.item] != function || t.item == i {
			return plain
		}
		to := s.pair[t.item]
		if to == none {
			settled = false
			return plain
		}
		if s == c.b {
			to = t.item
		}
		return "=" + strconv.Itoa(int(to))
	})
	return hash, settled
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
