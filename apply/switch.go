package apply

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

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
// Preconditions: all threads are stopped and none is inside a zone; t is ready.
func (p *Process) switchEntries(t *transaction) error {
	if err := t.ready.all.compare(before); err != nil {
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
	if err = t.ready.gated.store(after); err == nil {
		err = t.ready.gated.compare(after)
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
	gated, deciding := t.ready.gated, t.ready.deciding
	if deciding == t.ready.all { // one page, and no gates
		if err := deciding.storeCompared(after); err != nil {
			return finders, err
		}
		return finders, deciding.compare(after)
	}
	if err := gated.store(jump); err != nil {
		return finders, err
	}
	if err := gated.compare(jump); err != nil {
		return finders, err
	}
	if len(deciding.changes) == 0 {
		return finders, p.openGates(lead)
	}
	if err := deciding.store(after); err != nil {
		return finders, err
	}
	return finders, deciding.compare(after)
}

// settle gives all records their final states, the leader's last: it tells what
// was decided as long as any is unfinished.
func (p *Process) settle(t *transaction) error {
	lead := t.leader()
	for _, list := range [...][]*record{t.ins, t.outs} {
		for _, r := range list {
			if r == lead {
				continue
			}
			if err := p.settleRecord(t, r); err != nil {
				return err
			}
		}
	}
	if lead == nil {
		return nil
	}
	return p.settleRecord(t, lead)
}

func (p *Process) settleRecord(t *transaction, r *record) error {
	if s := t.final(r); r.state != s {
		return p.setState(r, s, r.leader)
	}
	return nil
}

// resume brings to its end what an earlier run began. All writes may come in
// any number: the gates stay as they are until the entries lead elsewhere.
func (p *Process) resume(t *transaction) error {
	err := p.readChain(t.unwinders, t).add(t.staying()...)
	if err == nil {
		err = t.ready.all.store(after)
	}
	if err == nil {
		err = t.ready.all.compare(after)
	}
	if err == nil {
		err = p.settle(t)
	}
	return err
}

// sameObjects checks that what the records are for is where it was when the
// process was opened, and not another library that begins its functions alike.
func (p *Process) sameObjects(t *transaction) error {
	ready := &t.ready
	if len(ready.notes) == 0 {
		return nil
	}
	if err := ready.noteReader.ReadSpans(ready.noteSpans); err != nil {
		return err
	}
	for i, n := range ready.notes {
		if s := &ready.noteSpans[i]; len(n.want) == 0 || !bytes.Equal(s.Buf[:s.N], n.want) {
			return &MismatchError{Object: n.record.Object, Function: t.changes[0].function, Addr: t.changes[0].addr,
				Why: "its object was closed, and another one is in its place"}
		}
	}
	return nil
}

// undo puts everything back after a write that failed, and says how the
// process was left.
func (p *Process) undo(t *transaction, finders *chain, cause error) error {
	var errs []error
	if err := finders.restore(); err != nil {
		errs = append(errs, err)
	}
	if err := t.ready.all.store(before); err != nil {
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
