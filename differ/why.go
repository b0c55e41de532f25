package differ

import (
	"path"
	"regexp"
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
			if fn.Edit.edited() && !coded(fn.Name) && !e.a.has(fn.Name) && !e.b.has(fn.Name) {
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
		if f != nil && f.Lo > 0 {
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
			if f := file.at(at.line); f != nil && (coded(f.Name) || named(l.s.names[i], f.Name)) {
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
	for _, item := range append([]int32{i}, s.parts[i]...) {
		for r, t := range s.references(item) {
			if name := r.Name(r.text); r.Branch && !asm.IsLocalLabel(name) && (t.where != asm.InItem || s.parent[t.item] != i) {
				names[stem(name)] = name
			}
		}
	}
	return names
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

var localLabel = regexp.MustCompile(`\.L\w+`)

// telling returns the first difference of function y and x that tells a person
// something: a jump whose target has moved shows only that something came or
// went in between.
func (e *explainer) telling(x, y int32) *Difference {
	d := e.first[y]
	if d == nil || !alikeButLabels(d.Original, d.Patched) {
		return d
	}
	as, bs := append([]int32{x}, e.a.parts[x]...), append([]int32{y}, e.b.parts[y]...)
	for k := range min(len(as), len(bs)) {
		ca, cb := cursor{e.a, e.a.Items[as[k]].Stmts}, cursor{e.b, e.b.Items[bs[k]].Stmts}
		reached := false
		for {
			sa, ta, okA := ca.next()
			sb, tb, okB := cb.next()
			reached = reached || okA && okB && int(sa.Line) == d.OriginalLine && int(sb.Line) == d.PatchedLine
			if !okA || !okB {
				break
			}
			if reached && !alikeButLabels(ta, tb) {
				return &Difference{Original: ta, Patched: tb, OriginalLine: int(sa.Line), PatchedLine: int(sb.Line)}
			}
		}
	}
	return d
}

// alikeButLabels reports whether two statements are the same but for the names
// of local labels.
func alikeButLabels(a, b string) bool {
	return localLabel.ReplaceAllString(a, ".L") == localLabel.ReplaceAllString(b, ".L")
}
