package apply

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// recover finishes or undoes what runs that were killed left, and frees what
// nothing refers to any more.
func (p *Process) recover(ctx context.Context, res *Result, o Options) error {
	t, free := p.unfinished()
	stubs := ptrace.Leftovers(p.mem, codeRanges(p.maps))
	for _, s := range stubs {
		t.zones = append(t.zones, zone{Range: s.Range, function: "a system call for an earlier run", going: true})
	}
	records := slices.Concat(t.outs, t.keeps)
	var halfDone []Applied
	for _, r := range records {
		if r.state != applied { // else its library was closed, which is no one's fault
			halfDone = append(halfDone, r.describe())
		}
	}
	var stacks stackUses
	if len(records)+len(stubs) > 0 {
		stop, err := p.commit(ctx, t, commitOptions{wait: o.wait(), stacks: &stacks})
		busy := (*BusyError)(nil)
		switch {
		case len(records) == 0 && errors.As(err, &busy):
			stubs = nil // they do no harm
		case err != nil:
			return err
		}
		o.logger().Warn("cleared up", "pid", p.PID, "patches", len(records), "calls", len(stubs), "stop", stop.Total)
		res.Recovered = append(res.Recovered, halfDone...)
	}
	if err := p.clear(stubs); err != nil {
		return err
	}
	if free = append(free, t.outs...); len(free) > 0 {
		freed, err := p.free(ctx, free, &stacks, res)
		if err != nil {
			return err
		}
		for _, r := range freed {
			if !slices.Contains(t.outs, r) && r.state == retired {
				res.Freed = append(res.Freed, r.describe())
			}
		}
	}
	if len(free)+len(records)+len(stubs) == 0 {
		return nil
	}
	return p.refresh()
}

// clear removes stubs in which no thread is, and memory that was mapped but
// whose record was not written yet.
func (p *Process) clear(stubs []ptrace.Leftover) error {
	for _, s := range stubs {
		if err := p.unmapIntent(s.Intent); err != nil {
			return err
		}
		if err := s.Clear(p.mem); err != nil {
			return err
		}
	}
	return nil
}

// unmapIntent frees what mapStep mapped last before it was killed: read-only
// memory at the start of the intended range in which nothing was written.
func (p *Process) unmapIntent(intent specs.Range[specs.Addr]) error {
	m := mappingAt(p.maps, intent.Lo)
	if intent.Size() == 0 || m == nil || m.Range.Lo != intent.Lo || m.Range.Hi > intent.Hi || m.Perm != perms[0] || !m.anonymous() {
		return nil
	}
	b := make([]byte, m.Range.Size())
	if readFull(p.mem, m.Range.Lo, b) != nil || len(bytes.TrimLeft(b, "\x00")) > 0 {
		return nil
	}
	_, err := p.withAgent(specs.Range[specs.Addr]{}, func(a *ptrace.Agent) error {
		_, err := a.Syscall(unix.SYS_MUNMAP, uint64(m.Range.Lo), m.Range.Size())
		return err
	})
	return err
}

// unfinished returns the transaction that brings all records to a final state,
// and those whose memory waits to be freed. What a killed run had decided is
// done; what it had not is undone.
func (p *Process) unfinished() (*transaction, []*record) {
	t := &transaction{}
	var free []*record
	states := make(map[specs.Addr]state)
	for _, r := range p.records {
		states[r.Base] = r.state
	}
	for _, r := range p.records {
		decided, known := states[r.leader]
		switch r.state {
		case staged, retired:
			if r.state == staged || !r.stays() {
				free = append(free, r)
			}
		case applied:
			if !p.inForce(r) {
				t.outs = append(t.outs, r)
			}
		case committing:
			if known && r.leader != r.Base && decided == applied {
				t.keeps = append(t.keeps, r)
			} else {
				t.outs = append(t.outs, r)
			}
		case leaving:
			if known && decided == committing {
				t.keeps = append(t.keeps, r)
			} else {
				t.outs = append(t.outs, r)
			}
		}
	}
	p.settleChanges(t)
	return t, free
}

// settleChanges works out, from what is in memory, how each entry of the
// records in t has to change.
func (p *Process) settleChanges(t *transaction) {
	type site struct {
		r          *record
		f          *recordedFunction
		candidates [][]byte
		want       []byte
	}
	sites := make(map[specs.Addr]*site)
	note := func(r *record, stays bool) {
		if !p.inForce(r) {
			return
		}
		for i := range r.Functions {
			f := &r.Functions[i]
			s := sites[f.Site]
			if s == nil {
				s = &site{r: r, f: f, want: f.Old, candidates: [][]byte{f.Old}}
				sites[f.Site] = s
			}
			s.candidates = append(s.candidates, f.New)
			if stays {
				s.want = f.New
			}
		}
	}
	for _, r := range t.outs {
		note(r, false)
		t.zones = append(t.zones, goingZones(r, nextCall)...)
	}
	for _, r := range t.keeps {
		note(r, true)
	}
	if len(t.outs)+len(t.keeps) == 0 {
		return
	}
	for _, r := range p.records { // a newer patch may have the same entries already
		if r.state == applied && slices.ContainsFunc(t.outs, func(o *record) bool { return o.leader == r.Base }) {
			note(r, true)
		}
	}
	for addr, s := range sites {
		now := make([]byte, len(s.want))
		if readFull(p.mem, addr, now) != nil {
			continue
		}
		if slices.ContainsFunc(s.candidates, func(c []byte) bool { return string(c) == string(now) }) && string(now) != string(s.want) {
			t.changes = append(t.changes, change{function: s.f.Name, object: s.r.Object, addr: addr, before: now, after: s.want})
		}
	}
	slices.SortFunc(t.changes, func(a, b change) int { return compareAddr(a.addr, b.addr) })
}
