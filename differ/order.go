package differ

import (
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// places refuses objects that have other neighbours than in the original build,
// where those count: in a section that the program reads as a list, and in
// data that somebody wrote in assembly, which code may reach by its distance from
// a label. Compilers order other data as they like, and their code does not
// depend on it.
func (j *judgement) places() {
	if !j.a.arranges() && !j.b.arranges() {
		return
	}
	before := j.arranged(j.a, j.b)
	for name, now := range j.arranged(j.b, j.a) {
		for k, x := range before[name][:min(len(before[name]), len(now))] {
			y := now[k]
			if j.a.pair[x] == y && j.a.boundary(x) == j.b.boundary(y) {
				continue
			}
			what := "it is where " + j.a.names[x] + " is in the original build"
			if j.a.pair[x] == y {
				what = "its alignment, and so its distance from what is before it, is another than in the original build"
			}
			if listSection(name) {
				what += ", in section " + name + ", which the program reads as a list"
			} else {
				what += ", and code may reach data that is written in assembly by its distance from other data"
			}
			j.refuse(j.b, y, what, "leave the order and the alignment of such data as they are, and put new data behind")
			break
		}
	}
}

// listSection reports whether the linker gives programs the begin and the end of
// a section of that name. Source: ld(1) manual, "Input Section Example".
func listSection(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == "" && (name[0] < '0' || name[0] > '9')
}

// arranges reports whether s may have anything for arranged: most units do not.
func (s *side) arranges() bool {
	return s.handwritten() || slices.ContainsFunc(s.Sections, func(sec asm.Section) bool { return sec.Kind == asm.Custom }) ||
		slices.ContainsFunc(s.Items, func(it asm.Item) bool { return it.Written })
}

// arranged returns, by section, the objects of s whose order counts. Of lists
// these are the ones that the other build has there too: [judgement.objects] tells
// of the rest.
func (j *judgement) arranged(s, other *side) map[string][]int32 {
	all, lists := s.handwritten(), make(map[string][]int32)
	for k := range s.Sections {
		sec := &s.Sections[k]
		list := sec.Kind == asm.Custom && listSection(sec.Name)
		if sec.Group() {
			continue // the linker chooses
		}
		for _, i := range sec.Items {
			x := s.pair[i]
			if s.roles[i] != object || list && (x == none || other.SectionOf(x).Name != sec.Name) {
				continue
			}
			if list || all || s.Items[i].Written {
				lists[sec.Name] = append(lists[sec.Name], i)
			}
		}
	}
	return lists
}
