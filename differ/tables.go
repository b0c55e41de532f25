package differ

import (
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// Hints about what is reached without a name.
const (
	hintByHand   = "leave the constants of hand-written code as they are, and put others behind them or into a section of their own"
	hintNameless = "give it a name of its own, and refer to that"
)

// handwritten reports whether no compiler wrote the unit: those begin with the
// name of the source, and say who they are unless they are told not to.
func (s *side) handwritten() bool {
	const head = 4 << 10 // bytes
	return s.Text != "" && s.Producer == "" && !strings.Contains(s.Text[:min(len(s.Text), head)], ".file\t\"")
}

// fixed reports whether the items of a section with content stay where they are
// to each other: the linker may fold and sort those of mergeable ones.
func fixed(sec *asm.Section) bool {
	switch sec.Kind {
	case asm.ROData, asm.RelRO, asm.Writable, asm.Zero:
		return !sec.Mergeable()
	}
	return false
}

// tables refuses data that changed and that code may reach without a name of
// its own: from the label before it, by distance.
func (j *judgement) tables() {
	if j.a.handwritten() && j.b.handwritten() {
		j.byHand()
		return
	}
	j.nameless()
}

// byHand compares the constants of hand-written units in order: what their
// names tell of who uses them need not be all. Behind the last one may be more.
func (j *judgement) byHand() {
	known := make(map[string]*asm.Section)
	for k := range j.b.Sections {
		known[j.b.Sections[k].Name] = &j.b.Sections[k]
	}
	for k := range j.a.Sections {
		was := &j.a.Sections[k]
		if !fixed(was) || was.Kind != asm.ROData && was.Kind != asm.RelRO {
			continue
		}
		var items []int32
		if is := known[was.Name]; is != nil {
			items = is.Items
		}
		for n, x := range was.Items {
			if n == len(items) {
				j.shifted(j.a, x, was.Name)
				break
			}
			if y := items[n]; j.a.names[x] != j.b.names[y] || j.a.alignment(x) != j.b.alignment(y) || j.items(x, y) != nil {
				j.shifted(j.b, y, was.Name)
				break
			}
		}
	}
}

// shifted refuses a table of hand-written code from item i of s on.
func (j *judgement) shifted(s *side, i int32, section string) {
	j.refusals = append(j.refusals, Refusal{Unit: j.unit, Name: section, Line: int(s.Items[i].Line), InOriginal: s == j.a,
		Reason: "a table of hand-written code changed or moved, and code that did not may reach it by its distance from another", Hint: hintByHand})
}

// nameless compares the content without a name to which nothing in the unit
// refers. Compilers make none: inline assembly knows where it is.
func (j *judgement) nameless() {
	type key struct {
		section string
		hash    uint64
	}
	count := make(map[key]int)
	of := func(s *side, i int32) key { return key{s.SectionOf(i).Name, j.cor.plainHash(s, i)} }
	lists := [2][]int32{j.a.unlabelled(), j.b.unlabelled()}
	for _, x := range lists[0] {
		count[of(j.a, x)]++
	}
	for _, y := range lists[1] {
		count[of(j.b, y)]--
	}
	for n, s := range [...]*side{j.a, j.b} {
		odd := slices.DeleteFunc(lists[n], func(i int32) bool { return n == 0 && count[of(s, i)] <= 0 || n == 1 && count[of(s, i)] >= 0 })
		for _, i := range s.unreferenced(odd) {
			j.refusals = append(j.refusals, Refusal{Unit: j.unit, Name: s.SectionOf(i).Name, Line: int(s.Items[i].Line), InOriginal: s == j.a,
				Reason: "data changed that has no name of its own, so that code which did not change may reach it by its distance from other data", Hint: hintNameless})
		}
	}
}

// unlabelled returns the content that only labels name, but for sections that
// gcc reaches through anchors: those are compared as a whole.
func (s *side) unlabelled() (items []int32) {
	for k := range s.Sections {
		sec := &s.Sections[k]
		if !fixed(sec) && sec.Kind != asm.Text || slices.ContainsFunc(sec.Items, s.anchored) {
			continue
		}
		for _, i := range sec.Items {
			if s.roles[i] == content && s.names[i] == "" {
				items = append(items, i)
			}
		}
	}
	return items
}

// anchored reports whether a section anchor is at item i.
func (s *side) anchored(i int32) bool {
	return slices.ContainsFunc(s.Items[i].Symbols, func(id int32) bool { return strings.HasPrefix(s.Symbols[id].Name, anchorPrefix) })
}

// unreferenced returns those of the items that no other refers to.
func (s *side) unreferenced(items []int32) []int32 {
	if len(items) == 0 {
		return nil
	}
	wanted, used := make([]bool, len(s.Items)), make([]bool, len(s.Items))
	for _, i := range items {
		wanted[i] = true
	}
	s.eachRefTo(wanted, func(i int32, _ bool, t *target) { used[t.item] = used[t.item] || t.item != i })
	return slices.DeleteFunc(items, func(i int32) bool { return used[i] })
}
