package differ

import (
	"path"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// explainer finds out why functions are in the patch: from their calls, and as
// far as they are known from the fix and from debug data.
type explainer struct {
	*plan
	fix    *Fix
	la, lb *locations
}

func newExplainer(p *plan, fix *Fix) *explainer {
	if fix == nil {
		fix = &Fix{}
	}
	return &explainer{plan: p, fix: fix, la: newLocations(p.a, fix), lb: newLocations(p.b, fix)}
}

// why returns why function y, which is x in the original build, differs.
func (e *explainer) why(x, y int32) Reasons {
	var rs Reasons
	own, edit := e.source(e.la, x)
	switch edit {
	case EditedSignature:
		rs = because(SignatureChanged)
	case EditedBody, EditAdded, EditRemoved:
		rs = because(SourceChanged)
	}
	c := e.compareCalls(x, y)
	e.flips(&rs, x, y, edit, &c)
	rs.add(InlinedCalleeChanged, e.inlined(x, own, rs))
	if edit == EditUnknown || edit == Unedited {
		rs.add(DataChanged, e.data(x, y))
	}
	if len(e.a.parts[x]) != len(e.b.parts[y]) {
		rs = append(rs, Reason{Cause: ColdPart})
	}
	if e.a.allLocal(x) && !e.b.allLocal(y) {
		rs = append(rs, Reason{Cause: LinkageChanged})
	}
	if edit == Unedited && !slices.ContainsFunc(rs, func(r Reason) bool { return r.Cause.explains() }) {
		e.fromElsewhere(&rs, c)
	}
	if !slices.ContainsFunc(rs, func(r Reason) bool { return r.Cause.explains() }) {
		rs = append(rs, Reason{Cause: CodeChanged})
	}
	rs.add(CallsDropped, c.dropped)
	rs.add(CallsAdded, c.added)
	slices.SortStableFunc(rs, func(a, b Reason) int { return int(a.Cause) - int(b.Cause) })
	return rs
}

// fromElsewhere explains a function whose source the fix does not touch, by
// what the fix does around it.
func (e *explainer) fromElsewhere(rs *Reasons, c calls) {
	var callees, files, hidden []string
	for _, name := range slices.Concat(c.both, c.dropped, c.added) {
		if f := e.fix.named(e.unit, name); f != nil && f.Edit.edited() {
			callees = append(callees, name)
		}
	}
	for _, f := range e.fix.Files {
		if !e.fix.relevant(e.unit, f.Name) {
			continue
		}
		if f.Outside {
			files = append(files, f.Name)
		}
		for _, fn := range f.Functions {
			if fn.Edit.edited() && !e.a.has(fn.Name) && !e.b.has(fn.Name) {
				hidden = append(hidden, fn.Name)
			}
		}
	}
	switch {
	case len(callees) > 0:
		rs.add(CalleeChanged, callees)
	case len(files) > 0:
		rs.add(DeclarationChanged, files)
	default:
		*rs = append(*rs, Reason{SourceUntouched, hidden})
	}
}

// has reports whether s has code of its own for a function of the source.
func (s *side) has(name string) bool {
	for i := range s.Items {
		if s.roles[i] == function && named(s.names[i], name) {
			return true
		}
	}
	return false
}

// added returns why function y is new.
func (e *explainer) added(y int32) Reasons {
	name := e.b.names[y]
	if clone(name) != "" {
		return because(CloneAppeared)
	}
	if clones := e.a.clonesOnly(name); len(clones) > 0 {
		return because(CloneVanished, clones...)
	}
	switch f, edit := e.source(e.lb, y); edit {
	case EditedSignature:
		return because(SignatureChanged)
	case Unedited, EditedBody:
		if f.Lo > 0 {
			return because(InlinedBefore)
		}
	}
	return because(NewCode)
}

// removed returns why function x is not in the patched build.
func (e *explainer) removed(x int32) Reasons {
	if clone(e.a.names[x]) != "" {
		return because(CloneVanished)
	}
	if clones := e.b.clonesOnly(e.a.names[x]); len(clones) > 0 {
		return because(CloneAppeared, clones...)
	}
	switch _, edit := e.source(e.la, x); edit {
	case EditedSignature:
		return because(SignatureChanged)
	case Unedited, EditedBody:
		return because(InlinedEverywhere)
	}
	return because(RemovedCode)
}

// source returns what the fix does to the source of function i: by the place
// where debug data says that it is defined, else by its name.
func (e *explainer) source(l *locations, i int32) (*FixFunction, Edit) {
	if len(e.fix.Files) == 0 {
		return nil, EditUnknown
	}
	if at, ok := l.definition(i); ok {
		if file := e.fix.file(at.file); file != nil {
			if f := file.at(at.line); f != nil && named(l.s.names[i], f.Name) {
				return f, f.Edit
			}
		} else if !e.fix.mayBe(at.file) {
			return nil, Unedited
		}
	}
	if f := e.fix.named(e.unit, l.s.names[i]); f != nil {
		return f, f.Edit
	}
	if l.s.Symbols[l.s.symbol[i]].Bind == asm.Global && e.fix.file(e.unit) == nil && path.Base(e.unit) != artificial {
		return nil, Unedited // such functions are not defined in headers
	}
	return nil, EditUnknown
}

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

// calls is what a function calls in the two builds.
type calls struct{ both, dropped, added []string }

func (e *explainer) compareCalls(x, y int32) calls {
	before, after := e.a.callees(x), e.b.callees(y)
	in := func(list map[string]string) func(string) bool {
		return func(stem string) bool { _, ok := list[stem]; return ok }
	}
	var c calls
	for stem, name := range after {
		if in(before)(stem) {
			c.both = append(c.both, name)
		} else {
			c.added = append(c.added, name)
		}
	}
	for stem, name := range before {
		if !in(after)(stem) {
			c.dropped = append(c.dropped, name)
		}
	}
	slices.Sort(c.both)
	slices.Sort(c.dropped)
	slices.Sort(c.added)
	return c
}

// callees returns what function i and its parts call or jump to, itself left
// out, by stem.
func (s *side) callees(i int32) map[string]string {
	names := make(map[string]string)
	var refs []asm.Ref
	for _, item := range append([]int32{i}, s.parts[i]...) {
		for _, st := range s.Items[item].Stmts {
			text := s.TextOf(st)
			refs = s.Dialect.Refs(refs[:0], st.Kind, text)
			for _, r := range refs {
				name := r.Name(text)
				if !r.Branch || asm.IsLocalLabel(name) {
					continue
				}
				if t := s.resolve(name); t.where != asm.InItem || s.parent[t.item] != i {
					names[stem(name)] = name
				}
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

// data names the data that function y refers to where it first differs from x,
// if nothing else is different there.
func (e *explainer) data(x, y int32) []string {
	d := e.first[y]
	if d == nil || d.Original == "" || d.Patched == "" {
		return nil
	}
	refsA := e.a.Dialect.Refs(nil, asm.Insn, d.Original)
	refsB := e.b.Dialect.Refs(nil, asm.Insn, d.Patched)
	if len(refsA) != len(refsB) {
		return nil
	}
	var names []string
	atA, atB := 0, 0
	for k := range refsA {
		ra, rb := refsA[k], refsB[k]
		if d.Original[atA:ra.Lo] != d.Patched[atB:rb.Lo] {
			return nil
		}
		atA, atB = ra.Hi, rb.Hi
		ta, tb := e.a.resolve(ra.Name(d.Original)), e.b.resolve(rb.Name(d.Patched))
		if ta.where != asm.InItem || tb.where != asm.InItem || e.refer(x, y, ta, tb) {
			continue
		}
		switch e.b.roles[tb.item] {
		case object, content, exception:
			names = append(names, e.datum(tb.item))
		}
	}
	if d.Original[atA:] != d.Patched[atB:] {
		return nil
	}
	return names
}

// datum names an item of b for people.
func (e *explainer) datum(y int32) string {
	if name := e.b.names[y]; name != "" && !asm.IsLocalLabel(name) {
		return name
	}
	if strings.Contains(e.b.SectionOf(y).Flags, "S") {
		return "a string"
	}
	return "a constant without a name"
}
