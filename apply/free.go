package apply

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// referred reports for each record whether a word of the process's writable
// memory points into it: a return address on a coroutine's stack, a pointer to
// a new function, a string constant. The process runs on.
//
// Stacks of which it is known that no thread returns into the records' code are
// searched only above their stack pointers, and what looks like a return
// address there is stale. Registers are not seen: they were searched at the
// stop.
func (p *Process) referred(records []*record, stacks *stackUses) ([]bool, error) {
	found := make([]bool, len(records))
	maps, err := readMaps(p.PID)
	if err != nil {
		return nil, err
	}
	s := &sweep{p: p, records: records, found: found, proven: stacks.proven, slots: make(map[specs.Addr]bool)}
	if slices.ContainsFunc(records, func(r *record) bool { return r.Finder.Entry != 0 }) {
		for _, slot := range p.findUnwinders().slots {
			s.slots[slot.addr] = true
		}
	}
	s.pagemap, _ = os.Open(fmt.Sprintf("/proc/%d/pagemap", p.PID)) // without it all pages are read
	if s.pagemap != nil {
		defer s.pagemap.Close()
	}
	s.footprints = p.footprints(records)
	s.span = specs.Range[specs.Addr]{Lo: ^specs.Addr(0)}
	for _, f := range s.footprints {
		for _, m := range f.all {
			s.span.Lo, s.span.Hi = min(s.span.Lo, m.Lo), max(s.span.Hi, m.Hi)
		}
	}
	still := stacks.still(p.PID)
	for i := range maps {
		m := &maps[i]
		if !m.writable() || !m.readable() || m.Path == "[vvar]" {
			continue
		}
		r := m.Range
		use, own := stacks.own[r.Hi]
		if s.stack = own && r.Contains(use.sp); s.stack {
			r.Lo = use.sp
		} else if dead, ok := stacks.ended(p, maps, m); ok && still {
			r.Lo = dead.Hi
		}
		if err := s.region(r); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// sweep looks through memory for pointers into records.
type sweep struct {
	p       *Process
	records []*record
	found   []bool
	// footprints are those of records, in their order, span is around all.
	footprints []footprint
	span       specs.Range[specs.Addr]
	pagemap    *os.File
	buf        []byte
	// stack is set while a thread's own stack is searched. Nothing on it
	// returns into the records in proven.
	stack  bool
	proven []*record
	// slots are words that lead to finders.
	slots map[specs.Addr]bool
}

// sweepSize is the size of the pieces that are read, in bytes.
const sweepSize = 1 << 20

// region reads the pages of r that exist and looks through them.
func (s *sweep) region(r specs.Range[specs.Addr]) error {
	if s.buf == nil {
		s.buf = make([]byte, sweepSize)
	}
	for lo := r.Lo; lo < r.Hi; {
		n := min(uint64(r.Hi-lo), sweepSize)
		spans := s.present(specs.Range[specs.Addr]{Lo: lo, Hi: lo + specs.Addr(n)})
		if err := s.p.mem.ReadSpans(spans); err != nil {
			return err
		}
		for _, span := range spans {
			s.words(span.Addr, span.Buf[:span.N])
		}
		lo += specs.Addr(n)
	}
	return nil
}

// present returns the runs of pages in r that have content.
func (s *sweep) present(r specs.Range[specs.Addr]) []ptrace.Span {
	page := specs.Addr(s.p.page)
	first, last := r.Lo/page, (r.Hi+page-1)/page
	entries := make([]byte, 8*(last-first))
	if s.pagemap == nil {
		return []ptrace.Span{{Addr: r.Lo, Buf: s.buf[:r.Size()]}}
	}
	if n, _ := s.pagemap.ReadAt(entries, int64(8*first)); n != len(entries) {
		return []ptrace.Span{{Addr: r.Lo, Buf: s.buf[:r.Size()]}}
	}
	const here = 3 << 62 // present, or swapped. Source: pagemap.rst
	var spans []ptrace.Span
	for i := first; i < last; i++ {
		if binary.LittleEndian.Uint64(entries[8*(i-first):])&here == 0 {
			continue
		}
		lo, hi := max(i*page, r.Lo), min((i+1)*page, r.Hi)
		if n := len(spans); n > 0 && spans[n-1].Addr+specs.Addr(len(spans[n-1].Buf)) == lo {
			spans[n-1].Buf = s.buf[spans[n-1].Addr-r.Lo : hi-r.Lo]
		} else {
			spans = append(spans, ptrace.Span{Addr: lo, Buf: s.buf[lo-r.Lo : hi-r.Lo]})
		}
	}
	return spans
}

// words looks through the memory at a.
func (s *sweep) words(a specs.Addr, b []byte) {
	lo, size := uint64(s.span.Lo), s.span.Size()
	for i := 0; i+8 <= len(b); i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		if w-lo >= size {
			continue
		}
		at := a + specs.Addr(i)
		for j, r := range s.records {
			// A patch's pointers into itself keep nothing alive.
			f := &s.footprints[j]
			if within(f.all, specs.Addr(w)) && !within(f.own, at) && !s.slots[at] && !s.stale(r, specs.Addr(w)) {
				s.found[j] = true
			}
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
			if !p.told(b, records...) {
				f.all = append(f.all, b)
			}
			if !p.told(b, r) {
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
func (s *sweep) stale(r *record, w specs.Addr) bool {
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

// free unmaps the memory of records that no entry leads to, as far as nothing
// refers to it, and returns which it freed. stacks are of a stop since which the code could not be entered,
// empty if there was none.
func (p *Process) free(ctx context.Context, records []*record, stacks *stackUses, res *Result) (freed []*record, err error) {
	ran := slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return r.state != staged || !p.hooksRan(r) })
	rest := slices.DeleteFunc(slices.Clone(records), func(r *record) bool { return slices.Contains(ran, r) })
	freed, err = p.freeUnused(ctx, rest, stacks, res)
	if len(ran) == 0 || err != nil {
		return freed, err
	}
	// No commit has made a stop for these, and nothing has been at their code but
	// who was given its address by a hook.
	own, empty, err := p.emptied(ctx, ran)
	if err != nil {
		return freed, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	if !empty {
		for _, r := range ran {
			res.Kept = append(res.Kept, r.describe())
		}
		return freed, nil
	}
	more, err := p.freeUnused(ctx, ran, own, res)
	return append(freed, more...), err
}

// emptied stops the process to see that no thread is in the code of records, and
// reports whether that is so.
func (p *Process) emptied(ctx context.Context, records []*record) (stacks *stackUses, empty bool, err error) {
	t := &transaction{emptied: records}
	for _, r := range records {
		t.zones = append(t.zones, goingZones(r, func(*recordedFunction) bool { return false })...)
	}
	stacks = &stackUses{}
	_, err = p.commit(ctx, t, commitOptions{wait: unhookWait, stacks: stacks})
	busy, stuck := (*BusyError)(nil), (*StuckError)(nil)
	if errors.As(err, &busy) || errors.As(err, &stuck) {
		return nil, false, nil
	}
	return stacks, err == nil, err
}

// freeUnused is free for records of which some are proved to be empty by stacks.
func (p *Process) freeUnused(ctx context.Context, records []*record, stacks *stackUses, res *Result) (freed []*record, err error) {
	if len(records) == 0 {
		return nil, nil
	}
	referred, err := p.referred(records, stacks)
	if err != nil {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	for i, r := range records {
		inside := r.mayBeLeft() && !slices.Contains(stacks.proven, r)
		if (referred[i] || inside || r.stays()) && (r.state != staged || p.hooksRan(r)) {
			res.Kept = append(res.Kept, r.describe())
		} else {
			freed = append(freed, r)
		}
	}
	if freed, err = p.unhook(ctx, freed, res); err != nil {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	held, err := p.unmap(freed)
	res.Held += held
	if err != nil && !errors.Is(err, ErrGone) {
		return nil, fmt.Errorf("the functions are as they were, but memory is left: %w", err)
	}
	return freed, nil
}
