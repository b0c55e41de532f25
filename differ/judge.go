package differ

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// Hints that several refusals share.
const (
	hintState = "a running program keeps its data: leave the object as it is and let changed functions work on a new one"
	hintConst = "declare it static const, so that the patch can carry a copy, or leave it as it is"
	hintClass = "objects that exist point to it: leave bases and virtual functions as they are, and do the work in one that there is"
	hintInit  = "constructors have already run in a running program: do the work in a function that is called later"
	// Numbers in names that more than one unit of an LTO build uses.
	hintNumbers = "numbers that LTO puts into names moved: build without -flto, or rename static symbols that have the same name"
	hintAligned = "give the object the alignment that it had"
	hintAnchors = "compile with -fno-section-anchors"
	hintMoved   = "give each new variable a section of its own, as in __attribute__((section(\".data.fix\"))), or compile both builds with -fno-section-anchors"
	hintMerged  = "give each new variable a section of its own, as in __attribute__((section(\".data.fix\"))), or compile both builds with -mno-global-merge"
	hintAsm     = "compile the function in a file of its own, or write it without that inline assembly"
)

// judgement is the comparison of two builds, item by item.
type judgement struct {
	*comparer
	unit     string
	cor      *correlation
	keeps    func(name string) bool
	kept     []bool                // objects of b that keeps says it of
	first    map[int32]*Difference // of functions and objects of b
	changed  []bool                // functions of b, by their main part
	refusals []Refusal
	// leaves is Input.Leaves, left ChangeSet.Left, warnings ChangeSet.Warnings.
	leaves         func(change string) bool
	left, warnings []string
}

func (j *judgement) refuse(s *side, item int32, reason, hint string) {
	j.refusals = append(j.refusals, Refusal{Unit: j.unit, Name: s.names[item], Line: int(s.Items[item].Line), Reason: reason, Hint: hint, InOriginal: s == j.a})
}

// judge compares all items.
func judge(in Input, cor *correlation) *judgement {
	j := &judgement{comparer: newComparer(cor.a, cor.b), unit: in.Unit, cor: cor, keeps: in.Keeps, leaves: in.Leaves, first: make(map[int32]*Difference),
		kept: make([]bool, len(cor.b.Items)), changed: make([]bool, len(cor.b.Items))}
	j.constants()
	for j.functions() {
		j.forget()
		j.constants()
	}
	j.objects()
	j.places()
	j.tables()
	j.ordered()
	j.attributes()
	return j
}

// functions compares the functions. It reports whether what it found may
// change what was found before: labels inside a function that others use.
func (j *judgement) functions() (again bool) {
	for k := range j.b.Items {
		y := int32(k)
		x := j.b.pair[y]
		if j.b.roles[y] != function || x == none || j.changed[y] {
			continue
		}
		if d, differs := j.function(x, y); differs {
			j.changed[y], j.moved[y] = true, true
			j.first[y] = d
			again = again || j.inner[y]
		}
	}
	return again
}

// function compares one function with its parts. Where there is no first
// difference, a part came or went, or the function became global.
func (j *judgement) function(x, y int32) (d *Difference, differs bool) {
	if d = j.items(x, y); d != nil {
		return d, true
	}
	pa, pb := j.a.parts[x], j.b.parts[y]
	if len(pa) != len(pb) {
		return nil, true
	}
	for k := range pa {
		if d = j.items(pa[k], pb[k]); d != nil {
			return d, true
		}
	}
	return nil, j.a.allLocal(x) && !j.b.allLocal(y)
}

// objects judges the variables and constants that exist in both builds.
func (j *judgement) objects() {
	for k := range j.b.Items {
		y := int32(k)
		x := j.b.pair[y]
		if j.b.roles[y] != object {
			continue
		}
		if x == none {
			if j.b.SectionOf(y).Kind == asm.Custom && !j.b.hook(y) {
				j.refuse(j.b, y, "new object in section "+j.b.SectionOf(y).Name+", which the program reads as a list", hintState)
			}
			continue
		}
		j.object(x, y)
	}
	for k := range j.a.Items {
		x := int32(k)
		if j.a.roles[x] == object && j.a.pair[x] == none && j.a.SectionOf(x).Kind == asm.Custom {
			j.refuse(j.a, x, "it is gone from section "+j.a.SectionOf(x).Name+", which the program reads as a list", hintState)
		}
	}
}

func (j *judgement) object(x, y int32) {
	a, b := j.a, j.b
	ka, kb := a.SectionOf(x), b.SectionOf(y)
	if what := j.mergedMoved(x, y); what != "" {
		j.refuse(b, y, "clang put static variables into one piece of memory, and there they were added, removed or moved: "+what, hintMerged)
		return
	}
	if a.constant(x) {
		switch what := classData(b.names[y]); {
		case j.stale[y] && what != "" && !j.renumbered(x, y):
			j.refuse(b, y, what+" changed"+describe(j.first[y]), hintClass)
		case j.stale[y] && !a.allLocal(x):
			j.refuse(b, y, "a constant that other units can name changed"+describe(j.first[y]), hintConst)
		case j.stale[y] && what == "":
			j.tableLeft(x, y)
		default:
			j.realigned(x, y)
		}
		return
	}
	d := j.items(x, y)
	switch {
	case d != nil && j.valueOnly(x, y) && b.boundary(y) > a.boundary(x):
		j.first[y] = d
		j.refuse(b, y, fmt.Sprintf("initial value of %v changed, and it is aligned to %d bytes instead of %d%s", ka.Kind, b.boundary(y), a.boundary(x), describe(d)), hintState)
	case d != nil && j.valueOnly(x, y):
		j.first[y] = d
		if name := base(b.names[y]); j.keeps != nil && j.keeps(name) {
			j.kept[y] = true
		} else {
			j.refuse(b, y, "initial value of "+ka.Kind.String()+" changed"+describe(d), hintState+
				"; if a running program may keep the value that it has, make the patch from a spec and name it there: allow: [{change: variable "+name+", reason: why}]")
		}
	case d != nil:
		j.first[y] = d
		j.refuse(b, y, "initial value or size of "+ka.Kind.String()+" changed"+describe(d), hintState)
	case writable(ka.Kind) != writable(kb.Kind) || (ka.Kind == asm.Custom || kb.Kind == asm.Custom) && ka.Name != kb.Name:
		j.refuse(b, y, "moved from section "+ka.Name+" to "+kb.Name, hintState)
	case a.allLocal(x) && !b.allLocal(y):
		j.refuse(b, y, "was static and is now global: other units cannot reach it", hintState)
	default:
		j.realigned(x, y)
	}
}

// realigned refuses an object that other units can name and that is aligned to
// more than it was: their code may count on that. Of code in this unit
// [plan.toObject] tells.
func (j *judgement) realigned(x, y int32) {
	if j.a.allLocal(x) {
		return
	}
	if was, is := j.a.boundary(x), j.b.boundary(y); is > was {
		j.refuse(j.b, y, fmt.Sprintf("it is aligned to %d bytes instead of %d, and other units may need that", is, was), hintAligned)
	}
}

// renumbered reports whether data of a class differ only because lambdas have
// other numbers, or are of a class of the library that holds one: what exists of
// that goes on with the closure that it has.
func (j *judgement) renumbered(x, y int32) bool {
	name := j.b.names[y]
	return hasLambda(name) && (strings.HasPrefix(name[4:], "NSt") || strings.HasPrefix(name[4:], "St") || j.cor.plainHash(j.a, x) == j.cor.plainHash(j.b, y))
}

// valueOnly reports whether two variables differ in nothing but their initial
// value: not in size, binding or section, nor in that each thread has one.
// [judgement.object] looks at their alignment.
func (j *judgement) valueOnly(x, y int32) bool {
	plain := func(k asm.SectionKind) bool { return k == asm.Writable || k == asm.Zero }
	size := func(s *side, i int32) uint64 {
		if s.Items[i].Common || s.symbol[i] == none {
			return 0
		}
		n, _ := strconv.ParseUint(s.Symbols[s.symbol[i]].Size, 0, 64)
		return n // 0 for an expression
	}
	return plain(j.a.SectionOf(x).Kind) && plain(j.b.SectionOf(y).Kind) && size(j.a, x) > 0 && size(j.a, x) == size(j.b, y) &&
		j.a.allLocal(x) == j.b.allLocal(y) && !j.labelled(j.a, x) && !j.labelled(j.b, y)
}

// labelled reports whether an object refers to places inside functions, as
// tables of computed goto do: new code must not go there.
func (j *judgement) labelled(s *side, i int32) bool {
	for _, t := range s.references(i) {
		if t.where == asm.InItem && asm.IsLocalLabel(t.name) && (s.roles[t.item] == function || s.roles[t.item] == part) {
			return true
		}
	}
	return false
}

// writable folds the sections between which a linker may choose.
func writable(k asm.SectionKind) asm.SectionKind {
	if k == asm.Zero {
		return asm.Writable
	}
	return k
}

func describe(d *Difference) string {
	if d == nil {
		return ""
	}
	return ": " + d.String()
}

// ordered compares what has no name: constructors, entries of linker sets,
// code at file level.
func (j *judgement) ordered() {
	lists := func(s *side) map[string][]int32 {
		m := make(map[string][]int32)
		for i := range s.Items {
			if s.roles[i] == ordered && !s.idle(int32(i)) {
				name := s.SectionOf(int32(i)).Name
				m[name] = append(m[name], int32(i))
			}
		}
		return m
	}
	la, lb := lists(j.a), lists(j.b)
	var names []string
	for name := range la {
		names = append(names, name)
	}
	for name := range lb {
		if _, both := la[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		j.list(name, la[name], lb[name])
	}
	j.constructors()
}

// idle reports whether an unnamed item is nothing but the room in front of a
// function's entry that -fpatchable-function-entry=N,M asks for (gcc manual,
// "Instrumentation Options"): it comes and goes with the function, and no code
// goes through it. No-ops without a name that somebody wrote do nothing either.
func (s *side) idle(i int32) bool {
	if s.SectionOf(i).Kind != asm.Text || s.Items[i].Bytes == 0 {
		return false
	}
	for _, st := range s.Items[i].Stmts {
		if st.Kind.Bytes() && (st.Kind != asm.Insn || s.TextOf(st) != "nop") {
			return false
		}
	}
	return true
}

// list compares the unnamed items of one section.
func (j *judgement) list(section string, as, bs []int32) {
	r := Refusal{Unit: j.unit, Name: section, Hint: hintAsm}
	for k := range min(len(as), len(bs)) {
		if d := j.items(as[k], bs[k]); d != nil {
			r.Line, r.Reason = d.PatchedLine, "content without a name changed"+describe(d)
			break
		}
	}
	if r.Reason == "" && len(as) != len(bs) {
		r.Reason = "content without a name was added or removed"
	}
	if r.Reason == "" {
		return
	}
	if initSection(section) {
		r.Hint = hintInit
	}
	j.refusals = append(j.refusals, r)
}

func initSection(name string) bool {
	for _, p := range [...]string{".init", ".fini", ".preinit", ".ctors", ".dtors"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
