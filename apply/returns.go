package apply

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// returnSite is an address behind a call instruction among the bytes of an
// entry that is overwritten: who returned there would run half a jump.
type returnSite struct {
	addr   specs.Addr
	change *change
}

// returnSites are those of all entries of t that hold original code, sorted.
// There are few functions that have one: they make a call by a register within
// their first bytes.
func (p *Process) returnSites(t *transaction) (sites []returnSite) {
	for i := range t.changes {
		c := &t.changes[i]
		if !c.original {
			continue
		}
		for n := 1; n < len(c.before); n++ {
			if afterCall[p.objects[0].image.Arch](c.before[:n]) {
				sites = append(sites, returnSite{c.addr + specs.Addr(n), c})
			}
		}
	}
	slices.SortFunc(sites, func(a, b returnSite) int { return compareAddr(a.addr, b.addr) })
	return sites
}

// suspended looks for stacks that no thread runs on, such as those of
// coroutines, from which a call returns to bytes that t overwrites. It looks
// through all writable memory but for the threads' own stacks, which the
// inspector has seen to: a word there that only looks like such a return address
// counts, too.
//
// Preconditions: the threads are stopped, and none is inside a zone.
func (p *Process) suspended(in *inspector, threads []*ptrace.Thread, t *transaction) ([]Inside, error) {
	sites := p.returnSites(t)
	if len(sites) == 0 {
		return nil, nil
	}
	if !in.fresh {
		if err := in.reread(); err != nil {
			return nil, err
		}
	}
	var stacks stackUses
	stacks.note(in, threads, nil)
	var found []Inside
	s := &sweep{p: p, span: specs.Range[specs.Addr]{Lo: sites[0].addr, Hi: sites[len(sites)-1].addr + 1}}
	s.see = func(_, w specs.Addr) {
		i, ok := slices.BinarySearchFunc(sites, w, func(s returnSite, w specs.Addr) int { return compareAddr(s.addr, w) })
		if ok && !slices.ContainsFunc(found, func(f Inside) bool { return f.PC == w }) {
			found = append(found, Inside{Function: sites[i].change.function, Object: sites[i].change.object, PC: w})
		}
	}
	err := s.memory(in.maps, func(m *Mapping) specs.Range[specs.Addr] {
		if _, own := stacks.own[m.Range.Hi]; own {
			return specs.Range[specs.Addr]{}
		}
		r := m.Range
		if dead, ok := stacks.ended(p, in.maps, m); ok {
			r.Lo = dead.Hi
		}
		return r
	})
	if errors.Is(err, ptrace.ErrManyPages) {
		return nil, fmt.Errorf("function %s, whose callers may be on stacks that no thread runs on: %w", sites[0].change.function, err)
	}
	return found, err
}
