package differ

import (
	"iter"

	"github.com/fother/fother/differ/asm"
)

// What refusals of what stays in use say of it.
const (
	leftFunction = "is not in the patched build, but its address is stored or passed on: where a running program keeps it, the old code stays in use"
	leftConstant = "this table of functions changed, and its address is stored or passed on: where a running program keeps it, the old table stays in use"
)

// leave refuses something of the original build that a running program may go
// on to use, unless the caller says that it may.
func (j *judgement) leave(s *side, i int32, kind, reason, hint string) {
	change := kind + " " + base(s.names[i])
	j.left = append(j.left, change)
	if j.leaves != nil && j.leaves(change) {
		return
	}
	j.refuse(s, i, reason, hint+"; if no running program keeps it, make the patch from a spec and name it there: allow: [{change: "+change+", reason: why}]")
}

// leftBehind refuses functions that are gone from the patched build while
// their address may still be kept: they go on to run. Those that call static
// functions that changed would do so in the wrong way, too: gcc adapts a static
// function's calling convention to the callers it knows. Of lambdas and of what
// is compiled in several units only a warning is due: closures that exist go on
// as what they are, and destructors are registered without anybody's doing.
// Nobody keeps the address of a nested function longer than the call around it.
func (j *judgement) leftBehind() {
	gone := make(map[int32]bool)
	for i := range j.a.Items {
		if j.a.roles[i] == function && j.a.pair[i] == none {
			gone[int32(i)] = true
		}
	}
	if len(gone) == 0 {
		return
	}
	kept, calls := make(map[int32]bool), make(map[int32]int32)
	j.a.eachRef(func(i int32, branch bool, t *target) {
		if gone[t.item] && !branch && t.entry() && !asm.IsLocalLabel(t.name) && j.a.parent[i] != t.item && !kept[t.item] {
			kept[t.item] = j.hands(i)
		}
		if y := j.a.pair[t.item]; gone[j.a.parent[i]] && y != none && j.changed[y] && j.a.allLocal(t.item) {
			calls[j.a.parent[i]] = y
		}
	})
	for k := range j.a.Items {
		i := int32(k)
		if !kept[i] {
			continue
		}
		y, wrong := calls[i]
		switch name := j.a.names[i]; {
		case wrong:
			j.refuse(j.a, i, "not in the patched build, but its address may be kept, and it calls "+j.b.names[y]+", which changed",
				"keep the function, or make "+j.b.names[y]+" global")
		case nested(name):
		case hasLambda(name) || j.a.SectionOf(i).Group():
			j.warnings = append(j.warnings, name+" "+leftFunction)
		default:
			j.leave(j.a, i, "function", leftFunction, "keep a function of that name, and let it do what the new one does")
		}
	}
}

// hands reports whether item i of the original, which mentions the address of a
// function, may give it to somebody who keeps it. Constant tables that are
// indexed only serve calls, and of those that changed tableLeft tells.
func (j *judgement) hands(i int32) bool {
	switch j.a.roles[i] {
	case object, content:
		return !j.a.constant(i) || j.a.pair[i] == none && j.a.escapes(i)
	case exception, ordered:
		return false
	}
	return true
}

// tableLeft refuses a constant that changed, leads to functions and may be kept by
// its address.
func (j *judgement) tableLeft(x, y int32) {
	if j.a.leads(x, maxDepth) && j.a.escapes(x) {
		j.leave(j.b, y, "constant", leftConstant+describe(j.first[y]), "leave it as it is, and let the functions in it do what the new ones do")
	}
}

// leads reports whether a constant has the address of a function in it, or that
// of a constant that leads to one.
func (s *side) leads(i int32, depth int) (found bool) {
	for _, t := range s.references(i) {
		if found || t.where != asm.InItem || t.item == i {
			continue
		}
		switch s.roles[t.item] {
		case function:
			found = t.entry() && !asm.IsLocalLabel(t.name)
		case object, content:
			found = depth > 0 && s.constant(t.item) && s.leads(t.item, depth-1)
		}
	}
	return found
}

// escapes reports whether the address of a constant may leave the functions
// that use it. Folded functions are the same in both builds: they do not refer to
// what changed.
func (s *side) escapes(x int32) bool {
	for k := range s.Items {
		i := int32(k)
		if s.parent[i] == x {
			continue
		}
		code := s.roles[i] == function || s.roles[i] == part
		for r, t := range s.references(i) {
			if t.where != asm.InItem || t.item != x {
				continue
			}
			if !code || r.Kind != asm.Insn || s.Dialect.Escapes == nil || s.Dialect.Escapes(r.text, r.Ref, s.instructions(i, r.at)) {
				return true
			}
		}
	}
	return false
}

// instructions yields those of item i behind statement n, and then those before
// it.
func (s *side) instructions(i int32, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		stmts := s.Items[i].Stmts
		for k := 1; k < len(stmts); k++ {
			if st := stmts[(n+k)%len(stmts)]; st.Kind == asm.Insn && !yield(s.TextOf(st)) {
				return
			}
		}
	}
}
