package differ

import (
	"maps"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// before tells who runs before main only.
type before struct {
	*side
	// only are the functions that nothing but constructors calls, and the
	// constructors.
	only map[int32]bool
	// listed are those that the program's list of constructors has.
	listed map[int32]bool
}

// startup finds the functions of s that run before main only: constructors, and
// static functions that nobody else calls and whose address nobody takes.
// Folded bodies do not say whether they call what they mention: unfold has
// those of constructors read as a whole first.
func (s *side) startup() before {
	b := before{s, make(map[int32]bool), make(map[int32]bool)}
	if !s.constructs() {
		return b
	}
	calls, used, later := make(map[int32][]int32), make(map[int32]bool), make(map[int32]bool)
	s.eachRef(func(i int32, branch bool, t *target) {
		to, by := s.parent[t.item], s.parent[i]
		switch {
		case s.roles[to] != function || to == by || s.roles[i] == exception || !t.entry() && asm.IsLocalLabel(t.name):
		case s.roles[i] == ordered && runsFirst(s.SectionOf(i).Name):
			b.listed[to] = true
		case !branch || s.roles[by] != function || !t.entry():
			later[to] = true // who has its address may call it
		default:
			calls[by] = append(calls[by], to)
			used[to] = true
		}
	})
	for k := range s.Items {
		if i := int32(k); s.roles[i] == function && (!s.allLocal(i) || !used[i]) {
			later[i] = true
		}
	}
	for i := range b.listed {
		delete(later, i)
		b.only[i] = true
	}
	spread(later, calls, b.listed)
	spread(b.only, calls, later)
	return b
}

// spread adds to set what its functions call, and what those do, except what is
// in but.
func spread(set map[int32]bool, calls map[int32][]int32, but map[int32]bool) {
	queue := slices.Collect(maps.Keys(set))
	for len(queue) > 0 {
		by := queue[0]
		queue = queue[1:]
		for _, to := range calls[by] {
			if !set[to] && !but[to] {
				set[to] = true
				queue = append(queue, to)
			}
		}
	}
}

// constructs reports whether the unit has a list of constructors.
func (s *side) constructs() bool {
	for i := range s.Sections {
		if sec := &s.Sections[i]; len(sec.Items) > 0 && runsFirst(sec.Name) {
			return true
		}
	}
	return false
}

// runsFirst reports whether functions that a section lists run before main.
func runsFirst(section string) bool {
	return initSection(section) && !strings.HasPrefix(section, ".fini") && !strings.HasPrefix(section, ".dtors")
}

// constructors refuses changes of functions that have already run.
func (j *judgement) constructors() {
	b := j.b.startup()
	for k, changed := range j.changed {
		y := int32(k)
		switch {
		case !changed:
		case b.listed[y]:
			j.refuse(j.b, y, "a constructor changed", hintInit)
		case staticInit(j.b.names[y]): // also if what runs at exit calls it
			j.refuse(j.b, y, "the initialisation of the file's variables changed", hintInit)
		case b.only[y]:
			j.refuse(j.b, y, "it changed, but only constructors call it", hintInit)
		}
	}
}

// foldedStartup adds to keep the folded functions that may be constructors or
// called by them. It reports whether there are any that count: if no static
// function changed, none does.
func (p *plan) foldedStartup(keep map[string]bool) (more bool) {
	changed := false
	for k, is := range p.changed {
		changed = changed || is && p.b.allLocal(int32(k))
	}
	if !changed {
		return false
	}
	queue, seen := []int32(nil), make(map[int32]bool)
	calls := make(map[int32][]int32)
	p.b.eachRef(func(i int32, _ bool, t *target) {
		to, by := p.b.parent[t.item], p.b.parent[i]
		if p.b.roles[to] != function {
			return
		}
		if p.b.roles[i] == ordered && runsFirst(p.b.SectionOf(i).Name) {
			queue = append(queue, to)
		} else if p.b.allLocal(to) {
			calls[by] = append(calls[by], to)
		}
	})
	for len(queue) > 0 {
		y := queue[0]
		queue = queue[1:]
		if seen[y] {
			continue
		}
		seen[y] = true
		queue = append(queue, calls[y]...)
		if p.b.folded(y) && !keep[p.b.names[y]] {
			keep[p.b.names[y]], more = true, true
		}
	}
	return more
}
