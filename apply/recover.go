package apply

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// recover finishes or undoes what runs that were killed left, and frees what
// nothing refers to any more.
func (p *Process) recover(ctx context.Context, res *Result, o Options) error {
	var stacks stackUses
	touched := false
	commit := func(t *transaction) error {
		touched = true
		stop, err := p.commit(ctx, t, commitOptions{wait: o.wait(), stacks: &stacks})
		if err == nil {
			o.logger().Warn("cleared up", "pid", p.PID, "patches", len(t.ins)+len(t.outs), "stop", stop.Total)
		}
		return err
	}
	if err := p.hooksLeft(ctx, res, o); err != nil {
		return err
	}
	waiting := p.waiting()
	free := slices.Clone(waiting)
	for _, t := range p.unfinished() {
		for _, r := range slices.Concat(t.ins, t.outs) {
			if r.state == committing || r.state == leaving {
				res.Recovered = append(res.Recovered, r.describe())
			}
		}
		if err := commit(t); err != nil {
			return err
		}
		free = append(free, slices.DeleteFunc(slices.Clone(t.going()), func(r *record) bool { return p.awaited(r) != nil })...)
	}
	if err := p.hooksAfter(ctx, p.records, res, o); err != nil {
		return err
	}
	if t := p.closed(); len(t.outs) > 0 {
		if err := commit(t); err != nil {
			return err
		}
		free = append(free, t.outs...)
	}
	stubs := ptrace.Leftovers(p.mem, codeRanges(p.maps))
	if len(stubs) > 0 {
		busy := (*BusyError)(nil)
		if err := commit(stubTransaction(stubs)); errors.As(err, &busy) {
			stubs = nil // they do no harm
		} else if err != nil {
			return err
		}
	}
	held, err := p.clear(ctx, stubs)
	res.Held += held
	if err != nil {
		return err
	}
	if len(free) > 0 {
		touched = true
		freed, err := p.free(ctx, free, &stacks, res)
		if err != nil {
			return err
		}
		for _, r := range freed {
			if slices.Contains(waiting, r) && r.state == retired {
				res.Freed = append(res.Freed, r.describe())
			}
		}
	}
	if !touched {
		return nil
	}
	return p.refresh()
}

// stubTransaction changes nothing: its stop shows that no thread is in code for
// system calls of earlier runs.
func stubTransaction(stubs []ptrace.Leftover) *transaction {
	t := &transaction{}
	for _, s := range stubs {
		t.zones = append(t.zones, zone{Range: s.Range, function: "a system call for an earlier run", going: true})
	}
	return t
}

// waiting are the records whose memory waits to be freed.
func (p *Process) waiting() []*record {
	return slices.DeleteFunc(slices.Clone(p.records), func(r *record) bool {
		switch r.state {
		case staged:
			return r.stays() && p.hooksRan(r)
		case retired:
			return r.stays() || p.awaited(r) != nil
		}
		return true
	})
}

// closed retires the records whose library was closed.
func (p *Process) closed() *transaction {
	t := &transaction{}
	for _, r := range p.records {
		if r.state == applied && !p.inForce(r) {
			t.outs = append(t.outs, r)
			t.zones = append(t.zones, goingZones(r, nextCall)...)
		}
	}
	return t
}

// clear removes stubs in which no thread is, and memory that was mapped but
// whose record was not written yet. It returns how long a thread was held.
func (p *Process) clear(ctx context.Context, stubs []ptrace.Leftover) (held time.Duration, err error) {
	for _, s := range stubs {
		h, err := p.unmapIntent(ctx, s.Intent)
		if held += h; err != nil {
			return held, err
		}
		if err := s.Clear(p.mem); err != nil {
			return held, err
		}
	}
	return held, nil
}

// unmapIntent frees what mapStep mapped last before it was killed: read-only
// memory at the start of the intended range in which nothing was written. It may have
// been mapped since the process was opened: a thread that gets no processor makes its
// call when the tool has long died.
func (p *Process) unmapIntent(ctx context.Context, intent specs.Range[specs.Addr]) (time.Duration, error) {
	if intent.Size() == 0 {
		return 0, nil
	}
	mapped, err := readMaps(p.PID)
	if err != nil {
		return 0, err
	}
	m := mappingAt(mapped, intent.Lo)
	if m == nil || m.Range.Lo != intent.Lo || m.Range.Hi > intent.Hi || !m.mayRecord() {
		return 0, nil
	}
	b := make([]byte, m.Range.Size())
	if readFull(p.mem, m.Range.Lo, b) != nil || len(bytes.TrimLeft(b, "\x00")) > 0 {
		return 0, nil
	}
	return p.withAgent(ctx, specs.Range[specs.Addr]{}, func(a *ptrace.Agent) error {
		_, err := a.Syscall(unix.SYS_MUNMAP, uint64(m.Range.Lo), m.Range.Size())
		return err
	})
}

// unfinished returns the transactions that bring all records to a final state.
// What a killed run had decided is done; what it had not is undone.
func (p *Process) unfinished() []*transaction {
	byLeader := make(map[specs.Addr]*transaction)
	for _, r := range p.records {
		if r.state != committing && r.state != leaving {
			continue
		}
		t := byLeader[r.leader]
		if t == nil {
			t = &transaction{resumed: true}
			byLeader[r.leader] = t
		}
		if r.state == committing {
			t.ins = append(t.ins, r)
		} else {
			t.outs = append(t.outs, r)
		}
	}
	var all []*transaction
	for _, at := range slices.Sorted(maps.Keys(byLeader)) {
		t := byLeader[at]
		p.resumeFrom(t, at)
		all = append(all, t)
	}
	return all
}

// resumeFrom completes a transaction, whose leader is at an address: what was
// decided, and what is still to be changed.
func (p *Process) resumeFrom(t *transaction, leader specs.Addr) {
	for _, r := range slices.Concat(t.ins, t.outs) {
		if r.Base == leader {
			t.lead, t.decided = r, r.open
		}
		if r.state == committing && p.awaited(r) != nil {
			t.returning = append(t.returning, r)
		}
	}
	sites := p.halfSites(t)
	// Entries in one page change at once, and so decide by themselves.
	t.decided = t.decided || slices.ContainsFunc(sites, func(s halfSite) bool { return bytes.Equal(s.now, s.after) })
	for _, s := range sites {
		c := change{function: s.function.Name, object: s.object, addr: s.function.Site, before: s.now, after: s.before}
		if t.decided {
			c.after = s.after
		}
		if bytes.Equal(s.now, s.function.Gated) {
			t.changes = append(t.changes, c)
			t.zones = append(t.zones, siteZone(&c))
		}
	}
	for _, r := range t.staying() {
		t.zones = append(t.zones, gateZone(r))
	}
	for _, r := range t.going() {
		may := nextCall
		if !t.decided && !slices.Contains(t.returning, r) { // nothing has ever run there but the gates
			may = func(*recordedFunction) bool { return false }
		}
		t.zones = append(t.zones, goingZones(r, may)...)
	}
}

// halfSite is an entry that was being switched. The function is that of the
// record whose gate it uses.
type halfSite struct {
	function           *recordedFunction
	object             string
	now, before, after []byte
}

// halfSites reads the entries of a transaction by rising address.
func (p *Process) halfSites(t *transaction) []halfSite {
	sites := make(map[specs.Addr]*halfSite)
	for _, r := range t.outs {
		for i := range r.Functions {
			f := &r.Functions[i]
			sites[f.Site] = &halfSite{function: f, object: r.Object, before: f.New, after: f.Old}
		}
	}
	for _, r := range t.ins {
		for i := range r.Functions {
			f := &r.Functions[i]
			s := &halfSite{function: f, object: r.Object, before: f.Old, after: f.New}
			if out := sites[f.Site]; out != nil {
				s.before = out.before
			}
			sites[f.Site] = s
		}
	}
	var all []halfSite
	records := slices.Concat(t.ins, t.outs)
	for _, at := range slices.Sorted(maps.Keys(sites)) {
		s := sites[at]
		there := slices.ContainsFunc(records, func(r *record) bool {
			return p.inForce(r) && slices.ContainsFunc(r.Functions, func(f recordedFunction) bool { return f.Site == at })
		})
		s.now = make([]byte, len(s.after))
		if there && readFull(p.mem, at, s.now) == nil {
			all = append(all, *s)
		}
	}
	return all
}
