package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// severally pairs functions of families that have several members on a side.
// Those that keep state in variables whose numbers say nothing go by the
// functions that use them: the code of another may be the same, but not what a
// running program has counted there. Those without go by their code and what
// they refer to. Then the rest goes by who uses it: what changed, and what
// refers to others without a partner.
func (c *comparison) severally(l, r map[nameKey][]named) {
	keys := several(l, r)
	if len(keys) == 0 {
		return
	}
	leads := [2]map[*entity][]*entity{c.left.leads(), c.right.leads()}
	for _, all := range [...]bool{false, true} {
		for again := true; again; {
			again = false
			for _, k := range keys {
				ls, rs := alone(l[k]), alone(r[k])
				again = c.alike(stateful(ls, false), stateful(rs, false)) || again
				if !all {
					ls, rs = stateful(ls, true), stateful(rs, true)
				}
				again = c.byCallers(alone(ls), alone(rs), leads) || again
			}
		}
	}
}

// several returns the families of functions, but not of closures, that are on
// both sides and have a choice, in order.
func several(l, r map[nameKey][]named) (keys []nameKey) {
	for k, ls := range l {
		if _, is := closures(ls[0].name); !is && len(r[k]) > 0 && len(ls)+len(r[k]) > 2 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b nameKey) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.file, b.file)) })
	return keys
}

// byCallers pairs functions of one family that are the only ones that the same
// functions and data use. leads is what [image.leads] returns for both sides. It
// reports whether there were any.
func (c *comparison) byCallers(ls, rs []named, leads [2]map[*entity][]*entity) (found bool) {
	byKey := map[string]*[2][]named{}
	for side, list := range [...][]named{ls, rs} {
		for _, n := range list {
			key, known := identities(leads[side][n.ent])
			if key == "" || !known {
				continue
			}
			if byKey[key] == nil {
				byKey[key] = &[2][]named{}
			}
			byKey[key][side] = append(byKey[key][side], n)
		}
	}
	for _, both := range byKey {
		if len(both[0]) == 1 && len(both[1]) == 1 {
			c.pair(both[0][0].ent, both[1][0].ent)
			found = true
		}
	}
	return found
}

// identities tells functions by what is the same in both builds; nil stands for
// data. It says whether all of them have partners or names that tell them apart.
func identities(list []*entity) (key string, known bool) {
	var ids []string
	known = true
	for _, u := range list {
		if u == nil {
			ids = append(ids, "data")
			continue
		}
		id, ok := u.identity()
		known = known && ok
		ids = append(ids, u.file()+":"+id)
	}
	slices.Sort(ids)
	return strings.Join(ids, " "), known
}

// identity is by what a function is known in both builds: its name, or its
// partner if that has numbers. It says whether there is one; without, it is the
// name of the family.
func (e *entity) identity() (id string, known bool) {
	plain, numbered := family(e.name())
	switch {
	case !numbered:
		return plain, true
	case len(e.pairs) == 0:
		return plain, false
	case e.img.name == "original":
		return fmt.Sprintf("=%#x", e.addr), true
	}
	return fmt.Sprintf("=%#x", e.pairs[0].addr), true
}

// stateful returns those that keep state in variables whose names have numbers,
// or those that do not.
func stateful(list []named, want bool) []named {
	return slices.DeleteFunc(slices.Clone(list), func(n named) bool { return n.ent.keepsState() != want })
}

// keepsState reports whether the code of a function refers to a variable whose
// name has a number.
func (e *entity) keepsState() bool {
	for _, p := range e.img.decode(e).parts {
		for i := range p.code {
			for j := range int(p.code[i].refs) {
				to := e.img.operand(&p.code[i], j).place
				if to.kind == placeData && to.ent.writable() && unstable(to.ent.name()) {
					return true
				}
			}
		}
	}
	return false
}
