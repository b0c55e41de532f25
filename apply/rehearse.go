package apply

import (
	"errors"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// rehearse does once, while the threads run, what the stop is about to do, so
// that the stop does not wait for the kernel: a first read or write costs ten
// times as much as the next one, since code and buffers of the tool are paged in,
// and each page of text that is written becomes a copy of the process's own. What
// is written for that are bytes that are there.
//
// Errors: [ErrWriteForbidden]. Whatever else goes wrong here, the stop finds out.
func (p *Process) rehearse(in *inspector, t *transaction) error {
	if t.ready.all.compare(before) == nil && p.sameObjects(t) == nil {
		for _, g := range t.ready.all.pages {
			if err := p.mem.Write(g.at, g.changes[0].before[:1]); errors.Is(err, ErrWriteForbidden) {
				return err
			}
		}
		if lead := t.leader(); lead != nil && len(t.changes) > 0 {
			_ = p.writeState(lead, lead.recordState)
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
	_, _ = in.batch([]*ptrace.Thread{ptrace.Imagined(in.p.PID, sp)})
	in.fresh, in.unproven, in.left = false, false, nil
}
