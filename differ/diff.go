package differ

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/fother/fother/differ/asm"
)

// Diff compares the two builds of one unit. Differences that a patch cannot
// carry are a *RefusalError, assembly that is not understood an
// *asm.SyntaxError. With a *RefusalError the change set is returned too, without
// Assembly.
func Diff(in Input) (*ChangeSet, error) {
	d, err := asm.DialectOf(in.Arch)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.Unit, err)
	}
	a, refusedA, err := load(in.Unit+" (original)", in.Original, d)
	if err != nil {
		return nil, err
	}
	b, refusedB, err := load(in.Unit+" (patched)", in.Patched, d)
	if err != nil {
		return nil, err
	}
	j := judge(in.Unit, correlate(a, b))
	for _, r := range append(refusedA, refusedB...) {
		r.Unit = in.Unit
		j.refusals = append(j.refusals, r)
	}
	if a.Producer != b.Producer {
		j.refusals = append(j.refusals, Refusal{Unit: in.Unit, Reason: fmt.Sprintf("the builds were made by %q and %q", a.Producer, b.Producer),
			Hint: "build both with the same compiler"})
	}
	p := carry(j)
	c := p.changeSet()
	if len(p.refusals) > 0 {
		return c, &RefusalError{p.refusals}
	}
	if len(p.carried) > 0 {
		c.Assembly = emit(p)
	}
	return c, nil
}

func load(name string, text []byte, d *asm.Dialect) (*side, []Refusal, error) {
	u, err := asm.Parse(name, string(text), d)
	if err != nil {
		return nil, nil, err
	}
	s, refused := survey(u)
	return s, refused, nil
}

// changeSet sums the plan up.
func (p *plan) changeSet() *ChangeSet {
	c := &ChangeSet{Unit: p.unit, Producer: p.b.Producer}
	for k := range p.b.Items {
		switch y := int32(k); p.b.roles[y] {
		case function:
			c.Functions = append(c.Functions, p.functionVerdict(y))
		case object:
			c.Data = append(c.Data, p.datumVerdict(y))
		}
	}
	for k := range p.a.Items {
		if p.a.pair[k] != none {
			continue
		}
		switch name := p.a.names[k]; p.a.roles[k] {
		case function:
			c.Functions = append(c.Functions, Function{Name: name, Original: name, Verdict: Removed, Reason: "not in the patched build"})
		case object:
			c.Data = append(c.Data, Datum{Name: name, Original: name, Verdict: Removed, Reason: "not in the patched build"})
		}
	}
	c.References = slices.SortedFunc(maps.Values(p.refs), func(x, y Reference) int { return cmp.Compare(x.Symbol, y.Symbol) })
	return c
}

func (p *plan) functionVerdict(y int32) Function {
	f := Function{Name: p.b.names[y]}
	x := p.b.pair[y]
	switch {
	case x == none:
		f.Verdict, f.Reason = New, "not in the original build"
		if kind := clone(f.Name); kind != "" {
			f.Reason = "specialised copy (" + kind[1:] + ") that the original build has not"
		}
	case p.changed[y]:
		f.Original, f.Verdict, f.Reason, f.First = p.a.names[x], Changed, p.reason[y]+p.calls(x, y), p.first[y]
	default:
		f.Original = p.a.names[x]
	}
	return f
}

func (p *plan) datumVerdict(y int32) Datum {
	d := Datum{Name: p.b.names[y], Carried: p.carried[y]}
	x := p.b.pair[y]
	switch {
	case x == none:
		d.Verdict, d.Reason = New, "not in the original build"
		if from := p.from[y]; from != "" {
			d.Reason = "used by " + from
		}
	case p.stale[y] || p.first[y] != nil:
		d.Original, d.Verdict, d.Reason, d.First = p.a.names[x], Changed, "content changed", p.first[y]
	default:
		d.Original = p.a.names[x]
	}
	return d
}
