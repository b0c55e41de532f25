package apply

import (
	"errors"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// rehearse does once, while the threads run, what the stop is about to do, so
// that the stop does not wait for the kernel: a first read or write costs ten
// times as much as the next one, since code and buffers of the tool are paged in.
// What is written for that is a state of the patch's own that is there. Text is not:
// while threads run, another file may come to be where it was, and would be written to.
//
// Errors: [ErrWriteForbidden]. Whatever else goes wrong here, the stop finds out.
func (p *Process) rehearse(in *inspector, t *transaction) error {
	if t.ready.all.compare(before) == nil && p.sameObjects(t) == nil {
		if lead := t.leader(); lead != nil && len(t.changes) > 0 {
			if err := p.writeState(lead, lead.recordState); errors.Is(err, ErrWriteForbidden) {
				return err
			}
		}
	}
	in.rehearse()
	return nil
}

// rehearse looks through the first thread's stack as at a stop. What it finds
// does not count.
func (in *inspector) rehearse() {
	i := slices.IndexFunc(in.maps, func(m Mapping) bool { return m.Path == "[stack]" })
	if i < 0 {
		return
	}
	m := in.maps[i]
	sp := m.Range.Hi - specs.Addr(min(m.Range.Size(), in.first))
	t := ptrace.Imagined(in.p.PID, sp)
	in.known[t] = true
	_, _ = in.batch([]*ptrace.Thread{t})
	delete(in.known, t)
	in.fresh, in.unproven, in.left = false, false, nil
}
