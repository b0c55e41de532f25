package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// prepareGates writes the gates of a transaction that needs them, while the
// process runs: no entry leads there, and no thread is inside.
func (p *Process) prepareGates(t *transaction) error {
	if err := t.check(p.page); err != nil || !t.gated(p.page) {
		return err
	}
	cell, want := t.leader().Base+openOffset, uint32(1)
	gated, deciding := t.parts(p.page)
	if len(deciding) > 0 {
		c := &deciding[0]
		if m := mappingAt(p.maps, c.addr); m == nil || !m.readable() { // by the gates
			return &AloneError{Object: c.object, Function: c.function, Why: c.gate.alone}
		}
		cell = c.addr + specs.Addr(len(c.after)-len(lastWord(c.after)))
		want = binary.LittleEndian.Uint32(lastWord(c.after))
	}
	for _, c := range gated {
		code, err := kpack.GateCode(p.objects[0].image.Arch, cell, want, c.gate.shut, c.gate.open)
		if err == nil {
			err = p.mem.Write(c.gate.at, code)
		}
		if err != nil {
			return fmt.Errorf("%s: function %s: gate: %w", c.object, c.function, err)
		}
	}
	return nil
}

// switchEntries is the commit itself; PROTOCOL.md explains the order.
//
// Preconditions: all threads are stopped and none is inside a zone.
func (p *Process) switchEntries(t *transaction) error {
	if err := p.compare(t.changes, before); err != nil {
		return err // nothing was written
	}
	if err := p.sameObjects(t); err != nil {
		return err
	}
	lead := t.leader()
	switch {
	case t.resumed:
		return p.resume(t)
	case lead == nil: // it was only to be known that no thread is inside
		return p.readChain(t.unwinders, t).remove(t.unhook...)
	}
	finders, err := p.lead(t, lead)
	if err != nil {
		return p.undo(t, finders, err)
	}
	gated, _ := t.parts(p.page)
	if err = p.store(gated, after); err == nil {
		err = p.compare(gated, after)
	}
	if err == nil {
		err = p.settle(t)
	}
	if err != nil {
		return fmt.Errorf("%w; the change is made, but not finished: run the same command again", err)
	}
	return nil
}

// lead goes up to the write that decides, and includes it.
func (p *Process) lead(t *transaction, lead *record) (*chain, error) {
	for _, r := range t.ins {
		if err := p.setState(r, committing, lead.Base); err != nil {
			return nil, err
		}
	}
	for _, r := range t.outs {
		if r.state == retired {
			continue
		}
		if err := p.setState(r, leaving, lead.Base); err != nil {
			return nil, err
		}
	}
	finders := p.readChain(t.unwinders, t)
	if err := finders.add(p.listening(t)...); err != nil {
		return finders, err
	}
	gated, deciding := t.parts(p.page)
	if err := p.store(gated, jump); err != nil {
		return finders, err
	}
	if err := p.compare(gated, jump); err != nil {
		return finders, err
	}
	if len(deciding) == 0 {
		return finders, p.openGates(lead)
	}
	if err := p.store(deciding, after); err != nil {
		return finders, err
	}
	return finders, p.compare(deciding, after)
}

// settle gives all records their final states, the leader's last: it tells what
// was decided as long as any is unfinished.
func (p *Process) settle(t *transaction) error {
	lead := t.leader()
	order := slices.DeleteFunc(slices.Concat(t.ins, t.outs), func(r *record) bool { return r == lead })
	if lead != nil {
		order = append(order, lead)
	}
	for _, r := range order {
		if s := t.final(r); r.state != s {
			if err := p.setState(r, s, r.leader); err != nil {
				return err
			}
		}
	}
	return nil
}

// resume brings to its end what an earlier run began. All writes may come in
// any number: the gates stay as they are until the entries lead elsewhere.
func (p *Process) resume(t *transaction) error {
	err := p.readChain(t.unwinders, t).add(t.staying()...)
	if err == nil {
		err = p.store(t.changes, after)
	}
	if err == nil {
		err = p.compare(t.changes, after)
	}
	if err == nil {
		err = p.settle(t)
	}
	return err
}

func before(c *change) []byte { return c.before }
func after(c *change) []byte  { return c.after }
func jump(c *change) []byte   { return c.gate.jump }

// compare checks that memory holds one side of all changes.
func (p *Process) compare(changes []change, side func(*change) []byte) error {
	spans := make([]ptrace.Span, len(changes))
	for i, c := range changes {
		spans[i] = ptrace.Span{Addr: c.addr, Buf: make([]byte, len(c.before))}
	}
	if err := p.mem.ReadSpans(spans); err != nil {
		return err
	}
	for i := range changes {
		c := &changes[i]
		if spans[i].N != len(c.before) || !bytes.Equal(spans[i].Buf, side(c)) {
			return &MismatchError{Object: c.object, Function: c.function, Addr: c.addr,
				Why: fmt.Sprintf("it begins with % x: want % x", spans[i].Buf[:spans[i].N], side(c))}
		}
	}
	return nil
}

// sameObjects checks that what the records are for is where it was when the
// process was opened, and not another library that begins its functions alike.
// The program itself cannot be closed.
func (p *Process) sameObjects(t *transaction) error {
	var last *record
	for _, r := range slices.Concat(t.ins, t.outs) {
		if last != nil && last.Bias == r.Bias || len(t.changes) == 0 || r.state == retired {
			continue
		}
		last = r
		i := slices.IndexFunc(p.objects, func(o *object) bool { return o.image.Bias == r.Bias })
		if i <= 0 { // the program is the first; what is not there has no changes
			continue
		}
		if id, err := p.objects[i].image.BuildID(); err != nil || id != r.ID.BuildID {
			return &MismatchError{Object: r.Object, Function: t.changes[0].function, Addr: t.changes[0].addr,
				Why: "its object was closed, and another one is in its place"}
		}
	}
	return nil
}

// store writes one side of all changes, with one write for each page: within it
// the kernel copies at once, whatever happens to the tool. What lies between
// two changes is written as it is.
func (p *Process) store(changes []change, side func(*change) []byte) error {
	rest := slices.SortedFunc(slices.Values(changes), func(a, b change) int { return compareAddr(a.addr, b.addr) })
	for len(rest) > 0 {
		n := 1
		for n < len(rest) && uint64(rest[n].addr)/p.page == uint64(rest[0].addr)/p.page {
			n++
		}
		if err := p.storePage(rest[:n], side); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// storePage is store for changes in one page, by rising address.
func (p *Process) storePage(changes []change, side func(*change) []byte) error {
	at, last := changes[0].addr, changes[len(changes)-1]
	b := side(&changes[0])
	if len(changes) > 1 {
		b = make([]byte, last.addr+specs.Addr(len(last.before))-at)
		if err := readFull(p.mem, at, b); err != nil {
			return err
		}
		for i := range changes {
			copy(b[changes[i].addr-at:], side(&changes[i]))
		}
	}
	return p.mem.Write(at, b)
}

// undo puts everything back after a write that failed, and says how the
// process was left.
func (p *Process) undo(t *transaction, finders *chain, cause error) error {
	var errs []error
	if err := finders.restore(); err != nil {
		errs = append(errs, err)
	}
	if err := p.store(t.changes, before); err != nil {
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		back := *t
		back.resumed, back.decided, back.lead = true, false, t.leader()
		errs = append(errs, p.settle(&back))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w; the change was not made, but not taken back either: run the same command again: %w", cause, err)
	}
	return fmt.Errorf("%w; all functions are as they were", cause)
}
