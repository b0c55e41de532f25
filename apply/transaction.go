package apply

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// transaction is what one commit does: all of it, or nothing.
type transaction struct {
	// ins become applied, outs retired.
	ins, outs []*record
	changes   []change
	ready     readied // once the commit begins
	zones     []zone
	// unwinders are told of the frames of ins, and not any more of those of
	// unhook, which is what a transaction of its own does.
	unwinders *unwinders
	unhook    []*record
	// emptied are records that stay as they are: it is only shown that no thread
	// is in their code.
	emptied []*record
	// resumed is set for one that an earlier run began, with the record that
	// leads it, if that is there. With decided it is brought to its end, else
	// undone: then outs become applied, and ins staged.
	resumed, decided bool
	lead             *record
	// returning are those of ins that come back: if that is undone they are
	// retired as before.
	returning []*record
}

// change is one entry that is switched. Its byte slices are as long as each
// other.
type change struct {
	function, object string
	addr             specs.Addr
	before, after    []byte
	gate             gate
	// original is set where before is the function's own code.
	original bool
}

// gate is the way of an entry while those of several are switched. It leads to
// shut until the leader of the transaction is open.
type gate struct {
	at         specs.Addr
	jump       []byte // to at, from the entry
	shut, open specs.Addr
	// alone says why shut or open is 0.
	alone string
}

// leader returns the record whose state decides for all, nil if there is none.
func (t *transaction) leader() *record {
	if t.resumed {
		return t.lead
	}
	if len(t.ins) > 0 {
		return t.ins[0]
	}
	for _, r := range t.outs {
		if r.state != retired {
			return r
		}
	}
	return nil
}

// final returns the state that r has when the transaction has ended.
func (t *transaction) final(r *record) state {
	out := slices.Contains(t.outs, r)
	switch {
	case t.resumed && !t.decided && out:
		return applied
	case t.resumed && !t.decided && slices.Contains(t.returning, r):
		return retired
	case t.resumed && !t.decided:
		return staged
	case out:
		return retired
	}
	return applied
}

// staying are the records that are in use when the transaction has ended, going
// those that are not.
func (t *transaction) staying() []*record {
	if t.resumed && !t.decided {
		return t.outs
	}
	return t.ins
}

func (t *transaction) going() []*record {
	if t.resumed && !t.decided {
		return t.ins
	}
	return t.outs
}

// gated reports whether the changes are in more than one page: one write does
// for one page, all or nothing.
func (t *transaction) gated(page uint64) bool {
	return !t.resumed && slices.ContainsFunc(t.changes, func(c change) bool {
		return uint64(c.addr)/page != uint64(t.changes[0].addr)/page
	})
}

// parts returns the changes that go through gates, and those that decide: all if
// they are in one page, else those that cannot have a gate. If there are none,
// the leader decides.
func (t *transaction) parts(page uint64) (gated, deciding []change) {
	if !t.gated(page) {
		return nil, t.changes
	}
	for _, c := range t.changes {
		if c.gate.shut == 0 || c.gate.open == 0 {
			deciding = append(deciding, c)
		} else {
			gated = append(gated, c)
		}
	}
	return gated, deciding
}

// check refuses a transaction in which more changes have to decide than one
// write can make.
func (t *transaction) check(page uint64) error {
	if !t.gated(page) {
		return nil
	}
	_, deciding := t.parts(page)
	refuse := (&transaction{changes: deciding}).gated(page)
	var errs []error
	for _, c := range deciding {
		errs = append(errs, &AloneError{Object: c.object, Function: c.function, Why: c.gate.alone})
		// The gates tell by these bytes whether the change was made.
		refuse = refuse || bytes.Equal(lastWord(c.before), lastWord(c.after))
	}
	if !refuse {
		return nil
	}
	return errors.Join(errs...)
}

// lastWord is what differs between two jumps: the distance, or the instruction.
func lastWord(code []byte) []byte { return code[max(0, len(code)-4):] }

// transaction returns the commit of a plan.
func (plan *Plan) transaction() *transaction {
	var ins, outs []*record
	for _, s := range plan.steps {
		ins = append(ins, s.record)
		if s.replaced != nil {
			outs = append(outs, s.replaced)
		}
	}
	return exchange(ins, outs)
}

// exchange returns the transaction by which ins come and outs go.
func exchange(ins, outs []*record) *transaction {
	t := &transaction{ins: ins}
	// What goes may make room for what comes of another series.
	current := map[specs.Addr]*recordedFunction{}
	for _, r := range outs {
		t.outs = append(t.outs, r)
		t.zones = append(t.zones, goingZones(r, mayStay(ins))...)
		for i, f := range r.Functions {
			current[f.Site] = &r.Functions[i]
		}
	}
	for _, r := range ins {
		t.zones = append(t.zones, comingZones(r)...)
		for _, f := range r.Functions {
			c := change{function: f.Name, object: r.Object, addr: f.Site, before: f.Old, after: f.New, original: true}
			c.gate = gate{at: f.Gate, jump: f.Gated, shut: f.Copy, open: f.Through, alone: f.Alone}
			if out := current[f.Site]; out != nil && len(out.New) == len(f.New) {
				c.before, c.gate.shut, c.original = out.New, out.Through, false
				delete(current, f.Site)
			}
			t.changes = append(t.changes, c)
		}
	}
	for _, r := range outs {
		t.changes = append(t.changes, restores(r, current)...)
	}
	return t
}

// remove adds the reverting of r to t.
func (t *transaction) remove(r *record) {
	t.outs = append(t.outs, r)
	t.zones = append(t.zones, goingZones(r, nextCall)...)
	sites := make(map[specs.Addr]*recordedFunction)
	for i, f := range r.Functions {
		sites[f.Site] = &r.Functions[i]
	}
	t.changes = append(t.changes, restores(r, sites)...)
}

// restores are the changes that take r's entries away at the given sites.
func restores(r *record, sites map[specs.Addr]*recordedFunction) []change {
	var all []change
	for _, f := range r.Functions {
		if sites[f.Site] == nil {
			continue
		}
		all = append(all, change{function: f.Name, object: r.Object, addr: f.Site, before: f.New, after: f.Old,
			gate: gate{at: f.Gate, jump: f.Gated, shut: f.Through, open: f.Copy, alone: f.Alone}})
	}
	return all
}

// AloneError means that a function can have no gate, and cannot change in one
// step together with others of which that is so too, in other pages.
type AloneError struct{ Object, Function, Why string }

func (e *AloneError) Error() string {
	return fmt.Sprintf("%s: function %s cannot change together with others like it: %s", e.Object, e.Function, e.Why)
}

// Hint says what the user can do.
func (e *AloneError) Hint() string {
	return fmt.Sprintf("let a patch of its own change %s, and apply and revert it alone", e.Function)
}
