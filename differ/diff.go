package differ

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"unsafe"

	"github.com/fother/fother/differ/asm"
)

// Diff compares the two builds of one unit. Differences that a patch cannot
// carry are a *RefusalError, assembly that is not understood an
// *asm.SyntaxError. With a *RefusalError the change set is returned too, without
// Assembly.
func Diff(in Input) (*ChangeSet, error) { return diff(in, false) }

// diff is Diff; whole has it parse all functions, also those that both builds
// have alike.
func diff(in Input, whole bool) (*ChangeSet, error) {
	d, err := asm.DialectOf(in.Arch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Unit, err)
	}
	pair, err := asm.NewPair(in.Unit+" (original)", textOf(in.Original), in.Unit+" (patched)", textOf(in.Patched), d)
	if err != nil {
		return nil, err
	}
	keep := make(map[string]bool)
	for round := 0; ; round++ {
		a, b, err := pair.Parse(func(function string) bool { return whole || keep[function] })
		if !whole && (err != nil || a.Clash || b.Clash) {
			whole = true // there may be an earlier error
			continue
		}
		if err != nil {
			return nil, err
		}
		p := compare(in, a, b)
		more := p.unfold(keep)
		more = p.foldedStartup(keep) || more
		if p.a.lost || p.b.lost || more && round == maxRounds || !whole && !more && len(p.refusals) > 0 {
			whole = true
		} else if !more {
			return p.result(in.Fix, in.Elsewhere)
		}
	}
}

// textOf returns text as a string that shares its memory: units are large, and
// nobody changes them ([Input]).
func textOf(text []byte) string { return unsafe.String(unsafe.SliceData(text), len(text)) }

// maxRounds bounds how often functions are taken out of their folds.
const maxRounds = 4

// compare compares two parsed builds and plans the patch.
func compare(in Input, original, patched *asm.Unit) *plan {
	a, refusedA := survey(original)
	b, refusedB := survey(patched)
	j := judge(in, correlate(a, b))
	for i, r := range append(refusedA, refusedB...) {
		r.Unit, r.InOriginal = in.Unit, i < len(refusedA)
		j.refusals = append(j.refusals, r)
	}
	if a.Producer != b.Producer && a.Text != "" && b.Text != "" {
		j.refusals = append(j.refusals, Refusal{Unit: in.Unit, Reason: fmt.Sprintf("the builds were made by %q and %q", a.Producer, b.Producer),
			Hint: "build both with the same compiler"})
	}
	return carry(j)
}

// unfold adds to keep the folded functions that are not the same in both
// builds, because something that they refer to is not, those whose code is asked
// for, and those that keep state and have rivals: that a body of that name was
// folded tells nothing about which is which. It reports whether there are any.
func (p *plan) unfold(keep map[string]bool) (more bool) {
	for _, name := range p.cor.unsettled {
		keep[name], more = true, true
	}
	moving := make(map[string]bool) // lambdas of one function may have changed places
	for y, changed := range p.changed {
		if name := p.b.names[y]; changed && hasLambda(name) {
			moving[stem(name)] = true
		}
	}
	look := func(s *side, other *side, changed func(i int32) bool) {
		for k := range s.Items {
			i := int32(k)
			if (s.roles[i] == function || s.roles[i] == part) && s.folded(i) && (s.pair[i] == none || !other.folded(s.pair[i]) || changed(i) ||
				p.cor.rival(s, i) && p.cor.stateful(s, i) || len(moving) > 0 && hasLambda(s.names[i]) && moving[stem(s.names[i])]) {
				keep[s.names[i]], more = true, true
			}
		}
	}
	look(p.b, p.a, func(y int32) bool { return p.changed[y] || p.carried[y] })
	look(p.a, p.b, func(int32) bool { return false })
	return more
}

// result is the change set of the plan.
func (p *plan) result(fix *Fix, elsewhere func(name string) bool) (*ChangeSet, error) {
	c := p.changeSet(newExplainer(p, fix))
	if len(p.refusals) > 0 {
		p.places(fix)
		return c, &RefusalError{p.refusals}
	}
	if slices.Contains(p.carried, true) {
		c.Assembly = emit(p, elsewhere)
	}
	return c, nil
}

// changeSet sums the plan up.
func (p *plan) changeSet(e *explainer) *ChangeSet {
	c := &ChangeSet{Unit: p.unit, Producer: p.b.Producer, Left: p.left, Warnings: p.warnings}
	n := 0
	for _, r := range p.b.roles {
		if r == function {
			n++
		}
	}
	if n > 0 {
		c.Functions = make([]Function, 0, n)
	}
	for k := range p.b.Items {
		switch y := int32(k); p.b.roles[y] {
		case function:
			c.Functions = append(c.Functions, e.functionVerdict(y))
		case object:
			if p.b.hook(y) {
				c.Hooks = append(c.Hooks, hookOf(p.b.names[y]))
				continue
			}
			c.Data = append(c.Data, p.datumVerdict(y))
		}
	}
	for k := range p.a.Items {
		if p.a.pair[k] != none {
			continue
		}
		switch name := p.a.names[k]; p.a.roles[k] {
		case function:
			c.Functions = append(c.Functions, Function{Name: name, Original: name, Verdict: Removed, Reason: e.removed(int32(k))})
		case object:
			c.Data = append(c.Data, Datum{Name: name, Original: name, Verdict: Removed, Reason: because(RemovedCode)})
		}
	}
	c.References = slices.SortedFunc(maps.Values(p.refs), func(x, y Reference) int { return cmp.Compare(x.Symbol, y.Symbol) })
	return c
}

func (e *explainer) functionVerdict(y int32) Function {
	f := Function{Name: e.b.names[y]}
	x := e.b.pair[y]
	switch {
	case x == none:
		f.Verdict, f.Reason = New, e.added(y)
	case e.changed[y]:
		f.Original, f.Verdict, f.Reason, f.First = e.a.names[x], Changed, e.why(x, y), e.telling(x, y)
	default:
		f.Original = e.a.names[x]
	}
	return f
}

func (p *plan) datumVerdict(y int32) Datum {
	d := Datum{Name: p.b.names[y], Carried: p.carried[y], Kept: p.kept[y]}
	x := p.b.pair[y]
	if d.Carried && p.variable(y) {
		d.Align = p.b.boundary(y)
	}
	switch {
	case x == none:
		d.Verdict, d.Reason = New, because(NewCode)
		if from := p.from[y]; from != "" {
			d.Reason = append(d.Reason, Reason{UsedBy, []string{from}})
		}
	case p.stale[y] || p.first[y] != nil:
		d.Original, d.Verdict, d.Reason, d.First = p.a.names[x], Changed, because(ContentChanged), p.first[y]
		if from := p.from[y]; from != "" {
			d.Reason = append(d.Reason, Reason{UsedBy, []string{from}})
		}
	default:
		d.Original = p.a.names[x]
	}
	return d
}
