package verify

import (
	"cmp"
	"slices"
	"strings"
)

// correlate pairs functions and objects of the two sides by their names.
func (c *comparison) correlate() {
	files := matchFiles(c.left, c.right)
	for _, fn := range []bool{true, false} {
		left, right := namesOf(c.left.list(fn), nil), namesOf(c.right.list(fn), files)
		c.byName(left, right)
		c.byFamily(left, right)
		c.leftovers(left, right)
	}
}

func (im *image) list(fn bool) []*entity {
	if fn {
		return im.funcs
	}
	return im.objs
}

// named is one name of one entity.
type named struct {
	symName
	ent *entity
}

// namesOf returns all names of entities in order. rename gives files of this
// side the name that they have on the other.
func namesOf(list []*entity, rename map[string]string) (all []named) {
	for _, e := range list {
		if e.parent != nil {
			continue
		}
		for i := range e.names {
			n := &e.names[i]
			if to, ok := rename[n.file]; ok {
				n.file = to
			}
			all = append(all, named{*n, e})
		}
	}
	return all
}

// matchFiles maps the files of the right side to those of the left that have
// the same name and the most symbols in common.
func matchFiles(left, right *image) map[string]string {
	symbols := func(im *image) map[string]map[string]bool {
		files := map[string]map[string]bool{}
		for _, list := range [][]*entity{im.funcs, im.objs} {
			for _, e := range list {
				for _, n := range e.names {
					if n.file != "" {
						if files[n.file] == nil {
							files[n.file] = map[string]bool{}
						}
						f, _ := family(n.name)
						files[n.file][f] = true
					}
				}
			}
		}
		return files
	}
	l, r := symbols(left), symbols(right)
	byBase := map[string][]string{}
	for name := range l {
		base, _, _ := strings.Cut(name, "#")
		byBase[base] = append(byBase[base], name)
	}
	rename, taken := map[string]string{}, map[string]bool{}
	for name := range r {
		base, _, _ := strings.Cut(name, "#")
		if len(byBase[base]) == 1 && strings.HasSuffix(name, "#1") && byBase[base][0] == name {
			rename[name], taken[name] = name, true
		}
	}
	var rest []fileMatch
	for name, syms := range r {
		if rename[name] != "" {
			continue
		}
		base, _, _ := strings.Cut(name, "#")
		for _, other := range byBase[base] {
			rest = append(rest, fileMatch{overlap(syms, l[other]), name, other})
		}
	}
	slices.SortFunc(rest, func(a, b fileMatch) int {
		return cmp.Or(-cmp.Compare(a.common, b.common), compareBool(a.right != a.left, b.right != b.left), cmp.Compare(a.right, b.right), cmp.Compare(a.left, b.left))
	})
	for _, m := range rest {
		if rename[m.right] == "" && !taken[m.left] {
			rename[m.right], taken[m.left] = m.left, true
		}
	}
	for name := range r {
		if rename[name] == "" {
			rename[name] = name + " (patched)"
		}
	}
	return rename
}

type fileMatch struct {
	common      int
	right, left string
}

func overlap(a, b map[string]bool) (n int) {
	for k := range a {
		if b[k] {
			n++
		}
	}
	return n
}

type nameKey struct{ name, file string }

func group(all []named, by func(named) (nameKey, bool)) map[nameKey][]named {
	m := map[nameKey][]named{}
	for _, n := range all {
		if k, ok := by(n); ok {
			m[k] = append(m[k], n)
		}
	}
	return m
}

// byName pairs what has the same stable name in the same scope.
func (c *comparison) byName(left, right []named) {
	by := func(n named) (nameKey, bool) {
		if n.local && unstable(n.name) {
			return nameKey{}, false
		}
		return nameKey{n.name, n.file}, true
	}
	r := group(right, by)
	l := group(left, by)
	for k, ls := range l {
		if rs := r[k]; len(ls) == len(rs) {
			for i := range ls {
				c.pair(ls[i].ent, rs[i].ent)
			}
		}
	}
}

// byFamily pairs clones whose names differ in numbers only: the only ones of
// their family, those that their code and their users tell apart, then those with
// equal code, by name, the rest in order. Objects wait for the functions that use
// them.
func (c *comparison) byFamily(left, right []named) {
	by := func(n named) (nameKey, bool) {
		f, ok := family(n.name)
		return nameKey{f, n.file}, ok && n.ent.fn && len(n.ent.pairs) == 0
	}
	l, r := group(left, by), group(right, by)
	for k, ls := range l {
		if rs := r[k]; len(ls) == 1 && len(rs) == 1 {
			c.pair(ls[0].ent, rs[0].ent)
		}
	}
	c.severally(l, r)
	for k, ls := range l {
		rs := r[k]
		if _, is := closures(ls[0].name); is {
			continue
		}
		match := func(eq func(a, b named) bool) {
			for _, a := range ls {
				i := slices.IndexFunc(rs, func(b named) bool { return len(b.ent.pairs) == 0 && eq(a, b) })
				if len(a.ent.pairs) == 0 && i >= 0 {
					c.pair(a.ent, rs[i].ent)
				}
			}
		}
		match(func(a, b named) bool { return outline(a.ent) == outline(b.ent) })
		match(func(a, b named) bool { return a.name == b.name })
		match(func(a, b named) bool { return true })
	}
	c.byLikeness(l, r)
}

// outline is the function's code without addresses and absolute numbers.
func outline(e *entity) string {
	var b strings.Builder
	for _, p := range e.img.decode(e).parts {
		for i := range p.code {
			b.Write(p.code[i].shape[:])
		}
	}
	return b.String()
}

// leftovers pairs what has a name that is the only one of its kind on both
// sides, though not in the same scope.
func (c *comparison) leftovers(left, right []named) {
	by := func(n named) (nameKey, bool) {
		return nameKey{name: n.name}, len(n.ent.pairs) == 0 && !(n.local && unstable(n.name))
	}
	l, r := group(left, by), group(right, by)
	for k, ls := range l {
		if rs := r[k]; len(ls) == 1 && len(rs) == 1 {
			c.pair(ls[0].ent, rs[0].ent)
		}
	}
}

// numbered pairs static variables whose numbers differ and that no function
// paired: those that the same functions use, then by name, then the only ones
// of their family.
func (c *comparison) numbered() {
	by := func(n named) (nameKey, bool) {
		f, ok := family(n.name)
		return nameKey{f, n.file}, ok && !n.ent.content && len(n.ent.pairs) == 0
	}
	l, r := group(namesOf(c.left.objs, nil), by), group(namesOf(c.right.objs, nil), by)
	for k, ls := range l {
		rs := r[k]
		c.byUsers(ls, rs)
		for _, a := range ls {
			for _, b := range rs {
				if a.name == b.name && len(a.ent.pairs) == 0 && len(b.ent.pairs) == 0 {
					c.pair(a.ent, b.ent)
				}
			}
		}
		if len(ls) == 1 && len(rs) == 1 {
			c.pair(ls[0].ent, rs[0].ent)
		}
	}
}

// byUsers pairs variables of one family that are the only ones that the same
// functions use: the static variables of functions that changed.
func (c *comparison) byUsers(ls, rs []named) {
	key := func(e *entity) string {
		k, _ := identities(e.usersOf())
		return k
	}
	count := map[string][2]int{}
	for side, list := range [2][]named{ls, rs} {
		for _, n := range list {
			k := key(n.ent)
			both := count[k]
			both[side]++
			count[k] = both
		}
	}
	for _, a := range ls {
		for _, b := range rs {
			k := key(a.ent)
			if k != "" && count[k] == [2]int{1, 1} && k == key(b.ent) {
				c.pair(a.ent, b.ent)
			}
		}
	}
}
