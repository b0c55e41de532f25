package apply

import (
	"errors"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// referred reports for each record whether a word of the process's writable
// memory points into it: a return address on a coroutine's stack, a pointer to
// a new function, a string constant. The process runs on. If there is more memory
// than can be searched, all are taken for referred to.
//
// Stacks of which it is known that no thread returns into the records' code are
// searched only above their stack pointers, and what looks like a return
// address there is stale. Registers are not seen: they were searched at the
// stop.
func (p *Process) referred(records []*record, stacks *stackUses) ([]bool, error) {
	maps, err := readMaps(p.PID)
	if err != nil {
		return nil, err
	}
	s := p.newPointers(records, stacks)
	err = s.memory(maps, s.part(maps, stacks))
	if errors.Is(err, ptrace.ErrManyPages) {
		return slices.Repeat([]bool{true}, len(records)), nil
	}
	return s.found, err
}

// pointers is a search for words that point into records.
type pointers struct {
	sweep
	records []*record
	found   []bool
	// footprints are those of records, in their order.
	footprints []footprint
	// stack is set while a thread's own stack is searched. Nothing on it
	// returns into the records in proven.
	stack  bool
	proven []*record
	// slots are words that lead to finders.
	slots map[specs.Addr]bool
}

func (p *Process) newPointers(records []*record, stacks *stackUses) *pointers {
	s := &pointers{sweep: sweep{p: p}, records: records, found: make([]bool, len(records)), proven: stacks.proven, slots: make(map[specs.Addr]bool)}
	s.see = s.pointer
	if slices.ContainsFunc(records, p.told) {
		for _, slot := range p.findUnwinders().slots {
			s.slots[slot.addr] = true
		}
	}
	s.footprints = p.footprints(records)
	s.span = specs.Range[specs.Addr]{Lo: ^specs.Addr(0)}
	for _, f := range s.footprints {
		for _, m := range f.all {
			s.span.Lo, s.span.Hi = min(s.span.Lo, m.Lo), max(s.span.Hi, m.Hi)
		}
	}
	return s
}

// part returns what of each mapping is searched.
func (s *pointers) part(maps []Mapping, stacks *stackUses) func(*Mapping) specs.Range[specs.Addr] {
	still := stacks.still(s.p.PID)
	return func(m *Mapping) specs.Range[specs.Addr] {
		r := m.Range
		use, own := stacks.own[r.Hi]
		if s.stack = own && r.Contains(use.sp); s.stack {
			r.Lo = use.sp
		} else if dead, ok := stacks.ended(s.p, maps, m); ok && still {
			r.Lo = dead.Hi
		}
		return r
	}
}

// pointer takes note of a word w at an address.
func (s *pointers) pointer(at, w specs.Addr) {
	for j, r := range s.records {
		// A patch's pointers into itself keep nothing alive.
		if f := &s.footprints[j]; within(f.all, w) && !within(f.own, at) && !s.slots[at] && !s.stale(r, w) {
			s.found[j] = true
		}
	}
}

// footprint is the memory that goes when a record does. Of it own is what no
// other record tells of.
type footprint struct{ all, own []specs.Range[specs.Addr] }

// footprints are those of records that are to go together: a block stays as long
// as any other record tells of it, and what it points to then is in use.
func (p *Process) footprints(records []*record) []footprint {
	all := make([]footprint, len(records))
	for i, r := range records {
		f := &all[i]
		for _, m := range r.core() {
			f.all = append(f.all, m.Range)
		}
		f.own = slices.Clone(f.all)
		for _, b := range r.blocks() {
			if !p.kept(b, records...) {
				f.all = append(f.all, b)
			}
			if !p.kept(b, r) {
				f.own = append(f.own, b)
			}
		}
	}
	return all
}

func within(all []specs.Range[specs.Addr], a specs.Addr) bool {
	return slices.ContainsFunc(all, func(m specs.Range[specs.Addr]) bool { return m.Contains(a) })
}

// stale reports whether a word is a return address on a stack to which nothing
// returns. A pointer to a function is not one.
func (s *pointers) stale(r *record, w specs.Addr) bool {
	const longest = 8 // no call instruction is longer
	text := r.text()
	if !s.stack || !slices.Contains(s.proven, r) || !text.Contains(w) || w-text.Lo < longest || len(s.p.objects) == 0 {
		return false
	}
	code := make([]byte, longest)
	if readFull(s.p.mem, w-longest, code) != nil {
		return false
	}
	return afterCall[s.p.objects[0].image.Arch](code)
}
