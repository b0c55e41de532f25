package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// How exceptions find the new code. The unwinder of a process (libgcc) asks the
// dynamic linker which object an address is in, by way of its own GOT entry for
// that function. While a patch is in, the entry leads to the patch's finder,
// which answers for the patch's code and leaves all else to the next finder, and
// the last one to the dynamic linker. PROTOCOL.md says in what order.

// finder is that of one record, as run-time addresses; 0 for none.
type finder struct {
	Entry specs.Addr `json:"entry,omitempty"`
	Next  specs.Addr `json:"next,omitempty"`
}

// unwinders are the GOT entries by which the unwinders of a process ask, and
// the function that answers.
type unwinders struct {
	slots []slotOf
	real  specs.Addr
	// linker is the object that the function is in.
	linker *object
}

// slotOf is the GOT entry of one object.
type slotOf struct {
	addr   specs.Addr
	object *object
}

// findUnwinders looks for them, once in a snapshot; there are none in most
// programs in C.
func (p *Process) findUnwinders() (*unwinders, error) {
	if p.unwinders != nil {
		return p.unwinders, nil
	}
	u, err := p.lookForUnwinders()
	p.unwinders = u
	return u, err
}

func (p *Process) lookForUnwinders() (*unwinders, error) {
	u := &unwinders{}
	for _, o := range p.objects {
		slots, err := kpack.FinderSlots(o.image)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Path, err)
		}
		for _, s := range slots {
			u.slots = append(u.slots, slotOf{s, o})
		}
	}
	if len(u.slots) == 0 {
		return u, nil
	}
	for _, o := range p.objects {
		s, ok, err := o.image.Lookup(kpack.FindObject, kpack.FindObjectVersion)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Path, err)
		}
		if ok {
			u.real, u.linker = specs.Addr(s.Value), o
			return u, nil
		}
	}
	return &unwinders{}, nil
}

// finderOf returns the finder that a step's patch needs in the process: none if
// there is no unwinder to be told. It refuses a patch with exception tables, and
// any patch of an object that throws, if exceptions would not find the new code.
func (s *step) finderOf(p *Process, f kpack.Finder) (finder, error) {
	u, err := p.findUnwinders()
	if err != nil || len(u.slots) > 0 || f.Entry == 0 {
		return finder(f), err
	}
	throws := s.patch.Exceptions()
	for _, name := range []string{"__cxa_throw", "__gxx_personality_v0", "_Unwind_Resume"} {
		if throws {
			break
		}
		if throws, err = s.object.image.Names(name); err != nil {
			return finder{}, fmt.Errorf("%s: %w", s.object.Path, err)
		}
	}
	if throws {
		return finder{}, &NoUnwinderError{Object: s.object.Path}
	}
	return finder{}, nil
}

// unhook takes the finders of records out of the chain, in a stop of its own,
// and returns the records whose memory may go then. Until here exceptions went
// through their code, for who still had a pointer to it.
func (p *Process) unhook(ctx context.Context, records []*record, res *Result) ([]*record, error) {
	if !slices.ContainsFunc(records, func(r *record) bool { return r.Finder.Entry != 0 }) {
		return records, nil
	}
	u, err := p.findUnwinders()
	if err != nil {
		return nil, err
	}
	t := &transaction{}
	if c := p.readChain(u, &transaction{unhook: records}); c != nil {
		for _, r := range records {
			if c.foreign && r.Finder.Entry != 0 { // it may be in use in a way that is not seen
				res.Kept = append(res.Kept, r.describe())
				records = slices.DeleteFunc(slices.Clone(records), func(o *record) bool { return o == r })
				continue
			}
			if slices.Contains(c.order, r.Finder.Entry) {
				t.unhook = append(t.unhook, r)
				t.zones = append(t.zones, goingZones(r, func(*recordedFunction) bool { return false })...)
			}
		}
	}
	if len(t.unhook) == 0 {
		return records, nil
	}
	stop, err := p.commit(ctx, t, commitOptions{wait: unhookWait})
	if busy := (*BusyError)(nil); errors.As(err, &busy) {
		for _, r := range t.unhook {
			res.Kept = append(res.Kept, r.describe())
		}
		return slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return slices.Contains(t.unhook, r) }), nil
	}
	res.Stop.Tries += stop.Tries
	res.Stop.Sum += stop.Sum
	res.Stop.Longest = max(res.Stop.Longest, stop.Longest)
	return records, err
}

// unhookWait is how long a thread may stay in code that nothing refers to.
const unhookWait = 100 * time.Millisecond

// watchUnwinders finds the unwinders, if t changes any finder, and adds the
// code in which no thread may be meanwhile: who is about to fill in a lazy GOT
// entry was called from the entry's object.
func (p *Process) watchUnwinders(t *transaction) error {
	t.unwinders = &unwinders{}
	if !slices.ContainsFunc(slices.Concat(t.staying(), t.unhook), func(r *record) bool { return r.Finder.Entry != 0 }) {
		return nil
	}
	u, err := p.findUnwinders()
	if err != nil {
		return err
	}
	t.unwinders = u
	c := chain{p: p}
	for _, s := range u.slots {
		head, err := c.read(s.addr)
		if err != nil || !s.object.image.Range.Contains(head) {
			continue
		}
		z := zone{Range: s.object.image.Range, function: "the unwinder, which has not been used before", object: s.object.Path}
		if s.object == p.executable() || slices.ContainsFunc(t.changes, func(c change) bool { return s.object.image.Range.Contains(c.addr) }) {
			// Its unwinder is linked in: most threads are always inside.
			z = zone{Range: u.linker.image.Range, function: "the dynamic linker", object: u.linker.Path}
		}
		t.zones = append(t.zones, z)
	}
	return nil
}
