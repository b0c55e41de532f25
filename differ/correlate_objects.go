package differ

import (
	"cmp"
	"slices"
)

// objects pairs static variables of functions: count.0, count.1.
func (c *correlation) objects(groups []*group) {
	groups = slices.DeleteFunc(groups, func(g *group) bool { return len(g.b) == 0 || len(g.a) == 0 })
	if len(groups) == 0 {
		return
	}
	for k, s := range [...]*side{c.a, c.b} {
		wanted := make([]bool, len(s.Items))
		for _, g := range groups {
			for _, i := range [...][]int32{g.a, g.b}[k] {
				wanted[i] = true
			}
		}
		s.users = s.collectUsers(wanted)
	}
	c.repeat(groups, c.owned) // objects may own others
	for _, g := range groups {
		c.unused(g)
		for _, j := range g.b {
			if c.b.pair[j] == none {
				c.leftover(g, j)
			}
		}
	}
}

// owned pairs the objects of a group by their users.
func (c *correlation) owned(g *group) {
	if as, bs := c.rest(g); len(as) == 0 || len(bs) == 0 {
		return
	}
	as, _ := c.byUser(c.a, g.a)
	bs, owners := c.byUser(c.b, g.b)
	for _, owner := range owners {
		c.ownedBy(owner, c.a.free(as[owner]), c.b.free(bs[owner]))
	}
}

// unused pairs objects that nobody names, if they are as many in both builds
// and look the same in order.
func (c *correlation) unused(g *group) {
	of := func(s *side, items []int32) (out []int32) {
		for _, i := range items {
			if s.pair[i] == none && len(s.users[i]) == 0 {
				out = append(out, i)
			}
		}
		return out
	}
	as, bs := of(c.a, g.a), of(c.b, g.b)
	if len(as) != len(bs) || !c.agree(as, bs) {
		return
	}
	for k := range as {
		c.join(as[k], bs[k])
		c.byOrder[bs[k]] = len(as) > 1
	}
}

// byUser sorts items by who uses them, as far as that is known, each list by
// first use, and returns the users in the order of their first use of any.
func (c *correlation) byUser(s *side, items []int32) (lists map[owner][]int32, users []owner) {
	type entry struct {
		user  owner
		item  int32
		order int32
	}
	type once struct {
		user owner
		item int32
	}
	var all []entry
	seen := make(map[once]bool)
	for _, i := range items {
		for _, u := range s.users[i] {
			o, known := c.owner(s, u.item)
			if key := (once{o, i}); known && !seen[key] {
				seen[key] = true
				all = append(all, entry{o, i, u.order})
			}
		}
	}
	slices.SortFunc(all, func(x, y entry) int { return cmp.Compare(x.order, y.order) })
	lists = make(map[owner][]int32)
	for _, e := range all {
		if lists[e.user] == nil {
			users = append(users, e.user)
		}
		lists[e.user] = append(lists[e.user], e.item)
	}
	return lists, users
}

// free returns the items that have no pair yet.
func (s *side) free(items []int32) []int32 {
	return slices.DeleteFunc(items, func(i int32) bool { return s.pair[i] != none })
}

// ownedBy pairs the objects that one function uses in both builds.
func (c *correlation) ownedBy(owner owner, as, bs []int32) {
	if len(as) == 0 || len(bs) == 0 {
		return
	}
	if len(as) == 1 && len(bs) == 1 {
		c.join(as[0], bs[0])
		return
	}
	if len(as) == len(bs) && c.agree(as, bs) {
		for i := range as {
			c.join(as[i], bs[i])
		}
		return
	}
	as, bs = c.byContent(as, bs, c.plainHash)
	if len(as) == 1 && len(bs) == 1 {
		c.join(as[0], bs[0])
		return
	}
	for _, j := range bs {
		if len(as) > 0 {
			c.unclear[j] = "several static variables of " + c.text(owner) + " have this name"
		}
	}
}

// agree reports whether content and the order of the numbers in the names say
// the same as the order of use does.
func (c *correlation) agree(as, bs []int32) bool {
	for i := range as {
		if c.plainHash(c.a, as[i]) != c.plainHash(c.b, bs[i]) {
			return false
		}
		for j := range i {
			if (c.a.number(as[j]) < c.a.number(as[i])) != (c.b.number(bs[j]) < c.b.number(bs[i])) {
				return false
			}
		}
	}
	return true
}

// number returns what sorts item i's name by its last number: one without any
// comes first.
func (s *side) number(i int32) int {
	_, n, _ := cutLast(s.names[i], ".")
	if n == "" || n[0] < '0' || n[0] > '9' {
		return -1
	}
	v := 0
	for _, r := range n {
		if r < '0' || r > '9' || v > 1<<30 {
			break
		}
		v = v*10 + int(r-'0')
	}
	return v
}

// leftover looks for a partner of an object of b whose users are others in the
// two builds, as after inlining.
func (c *correlation) leftover(g *group, j int32) {
	if c.unclear[j] != "" {
		return
	}
	var maybe []int32
	for _, i := range g.a {
		if c.a.pair[i] == none && c.possible(i, j) {
			maybe = append(maybe, i)
		}
	}
	if len(maybe) == 0 {
		return
	}
	rivals := 0
	for _, k := range g.b {
		if c.b.pair[k] == none && c.possible(maybe[0], k) {
			rivals++
		}
	}
	if len(maybe) == 1 && rivals == 1 && c.moved(maybe[0], j) {
		c.join(maybe[0], j)
		return
	}
	c.unclear[j] = "it may be " + c.a.names[maybe[0]] + " of the original build, which another function uses"
}

// possible reports whether the two can be one variable at all.
func (c *correlation) possible(i, j int32) bool {
	return c.plainHash(c.a, i) == c.plainHash(c.b, j)
}

// moved reports whether inlining explains that the users differ: one of them
// is in one build only.
func (c *correlation) moved(i, j int32) bool {
	onlyIn := func(s *side, i int32, other *side) bool {
		return slices.ContainsFunc(s.users[i], func(u use) bool { return other.Lookup(base(s.names[u.item])) < 0 })
	}
	return onlyIn(c.a, i, c.b) || onlyIn(c.b, j, c.a)
}

// rescoped marks new static variables that may be one of the original build
// which was in a function and is now in none, or the other way round.
func (c *correlation) rescoped() {
	gone := make(map[string][]int32)
	for k := range c.a.Items {
		i := int32(k)
		if name := c.a.variable(i); name != "" && c.a.pair[i] == none {
			gone[name] = append(gone[name], i)
		}
	}
	if len(gone) == 0 {
		return
	}
	for k := range c.b.Items {
		j := int32(k)
		if c.b.pair[j] != none || c.unclear[j] != "" {
			continue
		}
		for _, i := range gone[c.b.variable(j)] {
			if c.possible(i, j) {
				c.unclear[j] = "it may be " + c.a.names[i] + " of the original build, which has another scope"
			}
		}
	}
}

// variable returns what a static variable is called in the source, or "" if
// item i is none.
func (s *side) variable(i int32) string {
	if s.roles[i] != object || s.constant(i) || !s.allLocal(i) {
		return ""
	}
	return sourceName(s.names[i])
}
