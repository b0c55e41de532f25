package verify

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// closure is a type without a name in a mangled one: of a lambda with its
// parameters, or of another. The number says only how many there are before it
// in the function. Source: Itanium C++ ABI, 5.1.8. clang has names of its own
// for those that only one file knows.
var (
	closure      = regexp.MustCompile(`(Ul.*?E|Ut)[0-9]*_`)
	closureClang = regexp.MustCompile(`[0-9]+\$_[0-9]+`)
)

// closures takes the numbers of closures out of a mangled name. It says whether
// there were any.
func closures(name string) (string, bool) {
	if !strings.HasPrefix(name, "_Z") || !closure.MatchString(name) && !closureClang.MatchString(name) {
		return name, false
	}
	return closureClang.ReplaceAllString(closure.ReplaceAllString(name, "${1}#_"), "#$$_#"), true
}

// byLikeness pairs the closures of each family: those whose code is alike and
// which call the same, then the last two if they have the same turn. One that
// has no partner is another closure, and those that exist go on as they were.
func (c *comparison) byLikeness(l, r map[nameKey][]named) {
	var keys []nameKey
	for k, ls := range l {
		if _, is := closures(ls[0].name); is && len(r[k]) > 0 && len(ls)+len(r[k]) > 2 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b nameKey) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.file, b.file)) })
	for again := true; again; {
		again = false
		for _, k := range keys {
			again = c.alike(alone(l[k]), alone(r[k])) || again
		}
	}
	for _, k := range keys {
		if ls, rs := alone(l[k]), alone(r[k]); len(ls) == 1 && len(rs) == 1 && sameTurn(l[k], ls[0].ent, rs[0].ent) {
			c.pair(ls[0].ent, rs[0].ent)
		}
	}
}

// alone returns those without a partner.
func alone(list []named) []named {
	return slices.DeleteFunc(slices.Clone(list), func(n named) bool { return len(n.ent.pairs) > 0 })
}

// alike pairs functions of one family that are alike and refer to nothing
// without a partner, if no others are, or else those of one name. It reports
// whether there were any.
func (c *comparison) alike(ls, rs []named) (found bool) {
	twins := map[string]*[2][]named{}
	for side, list := range [...][]named{ls, rs} {
		for _, n := range list {
			text, settled := likeness(n.ent)
			if !settled {
				continue
			}
			if twins[text] == nil {
				twins[text] = &[2][]named{}
			}
			twins[text][side] = append(twins[text][side], n)
		}
	}
	for _, t := range twins {
		only := len(t[0]) == 1 && len(t[1]) == 1
		for _, a := range t[0] {
			for _, b := range t[1] {
				if only || a.name == b.name {
					c.pair(a.ent, b.ent)
					found = true
				}
			}
		}
	}
	return found
}

// likeness is the outline of a function with what it refers to: functions by
// their partners if they have one, what has no name by its content. It says
// whether all functions of families have partners.
func likeness(e *entity) (text string, settled bool) {
	var b strings.Builder
	b.WriteString(outline(e))
	settled = true
	for _, p := range e.img.decode(e).parts {
		for i := range p.code {
			for j := range int(p.code[i].refs) {
				o := e.img.operand(&p.code[i], j)
				to := o.place
				if to.kind != placeCode {
					b.WriteString(to.content(o.size))
					continue
				}
				if to.ent == e || to.ent.parent == e {
					continue
				}
				id, known := to.ent.identity()
				settled = settled && known
				b.WriteString(id)
			}
		}
	}
	return b.String(), settled
}

// content describes a place outside code by what does not move from build to
// build. size is the number of bytes that are accessed there, 0 if not known.
func (p place) content(size uint8) string {
	switch p.kind {
	case placeData:
		plain, _ := family(p.ent.name())
		return plus(plain, p.off)
	case placeImport, placeTLS, placeLabel:
		return plus(p.name, p.off)
	case placeAnon:
		data := p.img.bytes(p.addr, 80)
		if n := slices.Index(data, 0); n > 0 && text(data[:n]) {
			return strconv.Quote(string(data[:n]))
		}
		return fmt.Sprintf("% x", data[:min(len(data), int(size))])
	}
	return ""
}

// sameTurn reports whether a and b come in the same turn among the members of
// their family that have partners.
func sameTurn(family []named, a, b *entity) bool {
	for _, n := range family {
		for _, o := range n.ent.pairs {
			if earlier(n.ent, a) != earlier(o, b) {
				return false
			}
		}
	}
	return true
}

// earlier reports whether the number in the name of a is less than that of b:
// _ comes before 0_, that before 10_.
func earlier(a, b *entity) bool {
	x, y := a.name(), b.name()
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)) < 0
}

// renumbered finds closures of inline functions that changed and of which it
// is not known whether they are still the same: their numbers are all that
// pairs them.
func (r *Report) renumbered() {
	families := map[string][]*Function{}
	for i := range r.Functions {
		f := &r.Functions[i]
		plain, is := closures(f.Name)
		if is && (f.right == nil || !f.right.names[0].local) && (f.left == nil || !f.left.names[0].local) {
			families[plain] = append(families[plain], f)
		}
	}
	var leads map[*entity][]*entity
	for _, all := range families {
		var changed []*Function
		for _, f := range all {
			if f.Verdict == Changed {
				changed = append(changed, f)
			}
		}
		if len(changed) > 1 && leads == nil {
			leads = r.c.right.leads()
		}
		for _, f := range changed {
			if len(changed) > 1 && !r.inPlace(f, leads) {
				f.doubt = "several lambdas of one function changed, and may have changed places"
			}
			for _, g := range all {
				if g != f && (r.c.equal(g.left, f.right) || r.c.equal(f.left, g.right)) {
					f.doubt = "its name stands for what is " + g.Name + " in the other build"
				}
			}
		}
	}
}

// inPlace reports whether all code that leads to a changed closure is the same in
// both builds, up to what is no closure's: then the closures that it makes are
// the same ones. leads is what [image.leads] returns.
func (r *Report) inPlace(f *Function, leads map[*entity][]*entity) bool {
	verdicts := map[*entity]Verdict{}
	for i := range r.Functions {
		verdicts[r.Functions[i].right] = r.Functions[i].Verdict
	}
	queue, seen := []*entity{f.right}, map[*entity]bool{f.right: true}
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		for _, u := range leads[e] {
			if u == nil {
				return false // data may have changed
			}
			if seen[u] {
				continue
			}
			seen[u] = true
			if v, judged := verdicts[u]; !judged || v != Same {
				return false
			}
			if _, is := closures(u.name()); is {
				queue = append(queue, u)
			}
		}
	}
	return true
}

// leads finds the functions whose code refers to other functions, by those; nil
// stands for data.
func (im *image) leads() map[*entity][]*entity {
	m := map[*entity][]*entity{}
	note := func(to place, by *entity) {
		if to.kind != placeCode {
			return
		}
		e := to.ent
		if e.parent != nil {
			e = e.parent
		}
		if e != by && !slices.Contains(m[e], by) {
			m[e] = append(m[e], by)
		}
	}
	for _, e := range im.funcs {
		if e.parent != nil {
			continue
		}
		for _, p := range im.decode(e).parts {
			for i := range p.code {
				for j := range int(p.code[i].refs) {
					note(im.operand(&p.code[i], j).place, e)
				}
			}
		}
	}
	for at := range im.relocs {
		to, _ := im.loaded(at)
		note(to, nil)
	}
	if im.fixed {
		im.eachPointer(func(to place) { note(to, nil) })
	}
	return m
}

// equal compares two functions that are no pair.
func (c *comparison) equal(a, b *entity) bool {
	if a == nil || b == nil {
		return false
	}
	guesses := len(c.supported)
	d := c.walk(a, b)
	c.supported = c.supported[:guesses]
	c.unbind()
	return d == nil
}
