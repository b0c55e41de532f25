package differ

import (
	"slices"

	"github.com/fother/fother/differ/asm"
)

// inlined names the functions other than own whose source the fix changes, and
// whose code is in function x of the original build. Those that are called in
// the patched one have been said.
func (e *explainer) inlined(x int32, own *FixFunction, said Reasons) (names []string) {
	flipped := func(name string) bool {
		return slices.ContainsFunc(said, func(r Reason) bool {
			return r.Cause == NowCalled && slices.ContainsFunc(r.Names, func(n string) bool { return named(n, name) })
		})
	}
	for i := range e.fix.Files {
		file := &e.fix.Files[i]
		for k := range file.Functions {
			f := &file.Functions[k]
			if f != own && f.Edit.edited() && e.la.has(x, file.Name, f.Lo, f.Hi) && !named(e.a.names[x], f.Name) && !flipped(f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	return names
}

// flips moves from c to rs what is called in one build and inlined or a
// specialised copy in the other.
func (e *explainer) flips(rs *Reasons, x, y int32, own Edit, c *calls) {
	vanished := cut(&c.dropped, func(name string) bool { return clone(name) != "" && !e.b.defines(name) })
	appeared := cut(&c.added, func(name string) bool { return clone(name) != "" && !e.a.defines(name) })
	of := func(clones []string) func(string) bool {
		return func(name string) bool {
			return slices.ContainsFunc(clones, func(n string) bool { return base(n) == base(name) })
		}
	}
	cut(&c.dropped, of(appeared))
	cut(&c.added, of(vanished))
	rs.add(NowInlined, cut(&c.dropped, func(name string) bool { return e.inside(e.a, e.la, e.b, name, e.lb, y, own) }))
	rs.add(NowCalled, cut(&c.added, func(name string) bool { return e.inside(e.b, e.lb, e.a, name, e.la, x, own) }))
	rs.add(CloneAppeared, appeared)
	rs.add(CloneVanished, vanished)
}

// cut takes out of a list what is wanted, and returns it.
func cut(list *[]string, wanted func(string) bool) (out []string) {
	*list = slices.DeleteFunc(*list, func(s string) bool {
		if wanted(s) {
			out = append(out, s)
			return true
		}
		return false
	})
	return out
}

// clonesOnly returns the specialised copies of a function, in text order, that
// the other build has not.
func (s *side) clonesOnly(name string) (names []string) {
	for i := range s.Items {
		if n := s.names[i]; s.roles[i] == function && s.pair[i] == none && clone(n) != "" && base(n) == name {
			names = append(names, n)
		}
	}
	return names
}

// defines reports whether s has a function of that name but for numbers in it.
func (s *side) defines(name string) bool {
	for i := range s.Items {
		if s.roles[i] == function && stem(s.names[i]) == stem(name) {
			return true
		}
	}
	return false
}

// inside reports whether function i, which does not call name, has its code
// inside. Name is called in the build s; i and its locations l are of the other
// build. Debug data tells; without them it is so if the source of the caller
// calls a static function still, own being what the fix does to it, and there
// is none in the other build.
func (e *explainer) inside(s *side, ls *locations, other *side, name string, l *locations, i int32, own Edit) bool {
	t := s.resolve(name)
	if t.where != asm.InItem || s.roles[t.item] != function || !t.entry() {
		return false
	}
	f, edit := e.source(ls, t.item)
	if edit != Unedited && !edit.edited() {
		return false
	}
	if file, lo, hi, ok := e.extent(s, ls, t.item, f); ok && len(l.of(i)) > 0 {
		return l.has(i, file, lo, hi)
	}
	return own == Unedited && s.allLocal(t.item) && other.resolve(name).where != asm.InItem
}

// extent returns the lines of function i, of which f, if not nil, is the
// source. Without it they go to the next function of the file that has code.
func (e *explainer) extent(s *side, l *locations, i int32, f *FixFunction) (file string, lo, hi int, ok bool) {
	at, ok := l.definition(i)
	if !ok {
		return "", 0, 0, false
	}
	if f != nil && f.Lo > 0 {
		return at.file, f.Lo, f.Hi, true
	}
	for _, other := range l.of(i) {
		if other.file == at.file {
			hi = max(hi, other.line)
		}
	}
	for k := range s.Items {
		if s.roles[k] != function || int32(k) == i {
			continue
		}
		if next, ok := l.definition(int32(k)); ok && next.file == at.file && next.line > at.line {
			hi = min(hi, next.line-1)
		}
	}
	return at.file, at.line, hi, true
}
