package differ

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// byUsers pairs functions of groups that the same functions and objects use in
// both builds, and no others of their group: what these now use in the place of
// one is the other, wherever it is and whatever its number. Where they use several,
// the order of use and that of the numbers must agree. Their content must be
// the same, unless they keep state that only they lead to.
func (c *correlation) byUsers(groups []*group) {
	groups = slices.DeleteFunc(slices.Clone(groups), func(g *group) bool {
		as, bs := c.rest(g)
		return len(as) == 0 || len(bs) == 0 || hasLambda(c.b.names[bs[0]])
	})
	if len(groups) == 0 {
		return
	}
	var users [2]map[int32][]use
	for k, s := range [...]*side{c.a, c.b} {
		wanted := make([]bool, len(s.Items))
		for _, g := range groups {
			for _, i := range [...][]int32{g.a, g.b}[k] {
				wanted[i] = s.pair[i] == none
			}
		}
		users[k] = s.collectUsers(wanted)
	}
	for _, content := range [...]bool{true, false} {
		c.repeat(groups, func(g *group) { c.ofUsers(g, &users, content) })
	}
}

// ofUsers is byUsers for one group: for functions with the same content, or for
// those that keep state.
func (c *correlation) ofUsers(g *group, users *[2]map[int32][]use, content bool) {
	byKey := make(map[string]*[2][]int32)
	as, bs := c.rest(g)
	for k, list := range [...][]int32{as, bs} {
		s := [...]*side{c.a, c.b}[k]
		for _, i := range list {
			key, ok := c.usersKey(s, i, users[k][i])
			if !ok || !content && !c.stateful(s, i) {
				continue
			}
			if content {
				key += fmt.Sprintf(" %x", c.plainHash(s, i))
			}
			if byKey[key] == nil {
				byKey[key] = &[2][]int32{}
			}
			byKey[key][k] = append(byKey[key][k], i)
		}
	}
	for _, e := range byKey {
		for k, items := range e {
			slices.SortFunc(items, func(x, y int32) int { return cmp.Compare(users[k][x][0].order, users[k][y][0].order) })
		}
		if one := len(e[0]) == 1 && len(e[1]) == 1; one || len(e[0]) == len(e[1]) && c.agree(e[0], e[1]) {
			for k := range e[0] {
				c.join(e[0][k], e[1][k])
			}
		}
	}
}

// usersKey tells the users of function i, which are the same in both builds if
// their keys are. It reports whether there are any and all are paired.
func (c *correlation) usersKey(s *side, i int32, users []use) (key string, ok bool) {
	var ids []int32
	for _, u := range users {
		if u.item == i || s.roles[u.item] == exception {
			continue
		}
		id, paired := c.identity(s, u.item)
		if !paired {
			return "", false
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return fmt.Sprint(slices.Compact(ids)), len(ids) > 0
}

// owner is by what a user of objects is known in both builds: by the name in the
// source or, where others may have that name, by its item of b.
type owner struct {
	name string
	item int32 // or none
}

// owner returns what is said of a user. It reports whether that is known yet.
func (c *correlation) owner(s *side, user int32) (o owner, known bool) {
	name := s.names[user]
	source := withoutClone(name)
	if source != name {
		if item, ok := s.code(source); ok {
			user = item
		}
	}
	others := stem(source) != source && s.roles[user] == function
	if clone(s.names[user]) == "" || s.roles[user] == object {
		others = others || c.rival(s, user)
	}
	if !others {
		return owner{base(name), none}, true
	}
	id, paired := c.identity(s, user)
	return owner{item: id}, paired
}

// text returns the name of an owner for people.
func (c *correlation) text(o owner) string {
	if o.item != none {
		return c.b.names[o.item]
	}
	return o.name
}

// withoutClone returns the name of the function that a specialised copy or a part
// was made of.
func withoutClone(name string) string {
	for _, k := range cloneMarks {
		if at := strings.Index(name, k); at > 0 {
			name = name[:at]
		}
	}
	return name
}

// collectUsers returns the functions and objects that refer to the items that are
// wanted. One may be there twice, behind each other or for the parts of a
// function.
func (s *side) collectUsers(wanted []bool) map[int32][]use {
	users := make(map[int32][]use)
	order := int32(0)
	s.eachRefTo(wanted, func(i int32, _ bool, t *target) {
		if t.where != asm.InItem || !wanted[t.item] || t.anchor() {
			return
		}
		order++
		list, by := users[t.item], s.parent[i]
		if n := len(list); n == 0 || list[n-1].item != by {
			users[t.item] = append(list, use{by, order})
		}
	})
	return users
}
