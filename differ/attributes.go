package differ

import (
	"slices"

	"github.com/fother/fother/differ/asm"
)

// attributes refuses changes of what symbols are.
func (j *judgement) attributes() {
	for k := range j.b.Items {
		y := int32(k)
		if r := j.b.roles[y]; r != function && r != object {
			continue
		}
		x := j.b.pair[y]
		j.ifunc(x, y)
		j.names(x, y)
	}
	j.symbols()
	j.lambdas()
	j.closures()
	j.leftBehind()
	if !slices.Equal(j.a.Versions, j.b.Versions) {
		j.refusals = append(j.refusals, Refusal{Unit: j.unit, Name: ".symver", Reason: "symbol versions changed",
			Hint: "leave the versions of exported symbols as they are"})
	}
}

// ifunc refuses changed and new indirect functions: the loader has already
// asked their resolver.
func (j *judgement) ifunc(x, y int32) {
	is := func(s *side, i int32) bool {
		if i == none {
			return false
		}
		return slices.ContainsFunc(s.Items[i].Symbols, func(id int32) bool { return s.Symbols[id].Type == "gnu_indirect_function" })
	}
	now, then := is(j.b, y), is(j.a, x)
	if now && (!then || j.changed[y]) || then && !now {
		j.refuse(j.b, y, "an indirect function (ifunc) or its resolver is new or changed", "the loader has already chosen: change the implementations, not the resolver")
	}
}

// names refuses a function or object one of whose names stood for something
// else: whoever uses the name outside the unit would still get the other.
func (j *judgement) names(x, y int32) {
	for _, id := range j.b.Items[y].Symbols {
		sym := &j.b.Symbols[id]
		if sym.LocalLabel() {
			continue
		}
		t := j.a.namesake(sym)
		if x != none && t.where != asm.InItem && sym.Bind != asm.Local && stem(sym.Name) != sym.Name {
			j.refuse(j.b, y, "its name was "+j.a.names[x]+" in the original build, and units that did not change use that", hintNumbers)
		}
		local := t.where == asm.InItem && sym.Bind == asm.Local && j.a.Symbols[t.sym].Bind == asm.Local
		if t.where != asm.InItem || t.item == x && t.entry() || local && (x != none || !j.a.folds(t.item) || j.namesakes(t.item, y)) {
			continue
		}
		j.refuse(j.b, y, "its name "+sym.Name+" stood for "+j.a.names[t.item]+" in the original build",
			"one entry cannot be switched for one of its names: keep the aliases as they are, and in the next release build with -fno-ipa-icf")
	}
}

// namesakes reports whether a function of a and one of b are one entry with the
// same names but for numbers: constructors of closures, which have two. If they
// are no pair, none of the names parts from the others.
func (j *judgement) namesakes(x, y int32) bool {
	stems := func(s *side, i int32) (all []string) {
		for _, id := range s.Items[i].Symbols {
			if sym := &s.Symbols[id]; !sym.LocalLabel() {
				all = append(all, stem(sym.Name))
			}
		}
		slices.Sort(all)
		return all
	}
	return hasLambda(j.b.names[y]) && slices.Equal(stems(j.a, x), stems(j.b, y))
}

// folds reports whether item i is a function with several names: an alias, or
// one that the compiler folded into another with the same code.
func (s *side) folds(i int32) bool {
	n := 0
	for _, id := range s.Items[i].Symbols {
		if !s.Symbols[id].LocalLabel() {
			n++
		}
	}
	return s.roles[i] == function && n > 1
}
