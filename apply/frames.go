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
	// unread says which objects could not be searched.
	unread []error
}

// slotOf is the GOT entry of one object.
type slotOf struct {
	addr   specs.Addr
	object *object
}

// findUnwinders looks for them, once in a snapshot; there are none in most
// programs in C. It is not asked for patches without a finder, for it reads the
// names of all objects.
func (p *Process) findUnwinders() *unwinders {
	if p.unwinders == nil {
		p.unwinders = p.lookForUnwinders()
	}
	return p.unwinders
}

func (p *Process) lookForUnwinders() *unwinders {
	u := &unwinders{}
	note := func(o *object, err error) {
		if err != nil {
			u.unread = append(u.unread, fmt.Errorf("%s: %w", o.Path, err))
		}
	}
	for _, o := range p.objects {
		slots, err := kpack.Slots(o.image, kpack.FindObject)
		note(o, err)
		for _, s := range slots {
			u.slots = append(u.slots, slotOf{s, o})
		}
	}
	if len(u.slots) == 0 {
		return u
	}
	for _, o := range p.objects {
		s, ok, err := o.image.Lookup(kpack.FindObject, kpack.FindObjectVersion)
		if ok {
			u.real, u.linker = specs.Addr(s.Value), o
			return u
		}
		note(o, err)
	}
	u.slots = nil
	return u
}

// unwinding returns why exceptions might not find new code, or nil. What throws
// calls an unwinder by way of a GOT entry, if it is not part of it.
func (p *Process) unwinding(u *unwinders) error {
	if len(u.slots) == 0 {
		return errors.Join(append(u.unread, errors.New("the process has no unwinder that asks "+kpack.FindObject+" (glibc 2.35, libgcc of GCC 12)"))...)
	}
	if len(u.unread) > 0 {
		return fmt.Errorf("what could not be read may be an unwinder: %w", errors.Join(u.unread...))
	}
	asking := make(map[*object]bool)
	c := p.newChain(u, &transaction{})
	for _, s := range u.slots {
		if _, ok := c.understood(s); !ok {
			return fmt.Errorf("somebody else answers the unwinder in %s", s.object.Path)
		}
		asking[s.object] = true
	}
	for _, o := range p.objects {
		for _, name := range []string{"_Unwind_RaiseException", "_Unwind_Resume"} {
			used, err := p.unwindersOf(o, name)
			if err != nil {
				return err
			}
			for _, by := range used {
				if !asking[by] {
					return fmt.Errorf("%s uses the unwinder in %s, which does not ask %s", o.Path, by.Path, kpack.FindObject)
				}
			}
		}
	}
	return nil
}

// unwindersOf returns the objects to which o's GOT entries for a function of
// the unwinder lead, or will once they are bound.
func (p *Process) unwindersOf(o *object, name string) (used []*object, err error) {
	slots, err := kpack.Slots(o.image, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Path, err)
	}
	for _, s := range slots {
		v, err := p.word(s)
		if err != nil {
			return nil, err
		}
		to := p.objectAt(specs.Addr(v))
		if to == nil || to == o { // it is still lazy
			if to, _, err = p.lookup(o, name, ""); errors.Is(err, errNoDefinition) {
				continue // a weak reference, or one that is never called
			} else if err != nil {
				return nil, err
			}
		}
		used = append(used, to)
	}
	return used, nil
}

// finderOf returns the finder that a step's patch has. It refuses a patch with exception tables, and
// any patch of an object that throws, if exceptions would not find the new code.
func (s *step) finderOf(p *Process, f kpack.Finder) (finder, error) {
	why := errors.New("that is not supported on " + s.patch.Arch.Name + " yet")
	if kpack.HasFinder(s.patch.Arch) {
		if f.Entry == 0 {
			return finder{}, nil
		}
		if why = p.unwinding(p.findUnwinders()); why == nil {
			return finder{f.Entry, f.Next}, nil
		}
	}
	throws, err := s.throws()
	switch {
	case err != nil:
		return finder{}, fmt.Errorf("%s: %w", s.object.Path, err)
	case throws:
		return finder{}, &NoUnwinderError{Object: s.object.Path, Why: why}
	}
	return finder{f.Entry, f.Next}, nil // for an unwinder that is loaded later, too
}

// told reports whether r has a finder that is, or was, in the chain: then the
// word of the next one is not 0.
func (p *Process) told(r *record) bool {
	if r.Finder.Entry == 0 {
		return false
	}
	next, err := p.word(r.Finder.Next)
	return err != nil || next != 0
}

// listening are the records whose finders belong into the chain when t is done:
// also those of earlier commits, after which an unwinder may have been loaded.
func (p *Process) listening(t *transaction) []*record {
	var all []*record
	for _, r := range p.records {
		if r.state == applied && !slices.Contains(t.going(), r) && !slices.Contains(t.staying(), r) && p.inForce(r) {
			all = append(all, r)
		}
	}
	return append(all, t.staying()...)
}

// throws reports whether the patch or its object has to do with exceptions.
func (s *step) throws() (throws bool, err error) {
	throws = s.patch.Exceptions()
	for _, name := range kpack.Throwing {
		if throws || err != nil {
			break
		}
		throws, err = s.object.image.Names(name)
	}
	return throws, err
}

// unhook takes the finders of records out of the chain, in a stop of its own,
// and returns the records whose memory may go then. Until here exceptions went
// through their code, for who still had a pointer to it.
func (p *Process) unhook(ctx context.Context, records []*record, res *Result) ([]*record, error) {
	if !slices.ContainsFunc(records, p.told) {
		return records, nil
	}
	t := &transaction{}
	c := p.readChain(p.findUnwinders(), &transaction{unhook: records})
	var free []*record
	for _, r := range records {
		linked := c != nil && slices.Contains(c.order, r.Finder.Entry)
		switch {
		case !p.told(r) || r.state == staged && !linked:
		case c == nil || c.foreign: // it may be in use in a way that is not seen
			res.Kept = append(res.Kept, r.describe())
			continue
		case linked:
			t.unhook = append(t.unhook, r)
			t.zones = append(t.zones, goingZones(r, func(*recordedFunction) bool { return false })...)
		}
		free = append(free, r)
	}
	records = free
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
func (p *Process) watchUnwinders(t *transaction) {
	t.unwinders = &unwinders{}
	if !slices.ContainsFunc(slices.Concat(t.staying(), t.unhook), func(r *record) bool { return r.Finder.Entry != 0 }) {
		return
	}
	u := p.findUnwinders()
	t.unwinders = u
	for _, s := range u.slots {
		head, err := p.word(s.addr)
		if err != nil || !s.object.image.Range.Contains(specs.Addr(head)) {
			continue
		}
		z := zone{Range: s.object.image.Range, function: "the unwinder, which has not been used before", object: s.object.Path}
		if s.object == p.executable() || slices.ContainsFunc(t.changes, func(c change) bool { return s.object.image.Range.Contains(c.addr) }) {
			// Its unwinder is linked in: most threads are always inside.
			z = zone{Range: u.linker.image.Range, function: "the dynamic linker", object: u.linker.Path}
		}
		t.zones = append(t.zones, z)
	}
}
