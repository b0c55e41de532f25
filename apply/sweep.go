package apply

import (
	"encoding/binary"
	"errors"
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
	if pages, err := ptrace.OpenPageMap(p.PID); err == nil { // without it all pages are read
		defer pages.Close()
		s.pages = pages
	}
	for i, r := range records {
		m := r.memory()
		if i == 0 {
			s.span = m
		}
		s.span.Lo, s.span.Hi = min(s.span.Lo, m.Lo), max(s.span.Hi, m.Hi)
	}
	return found, s.all(maps, stacks)
}

// all looks through all writable memory. If that is too much, everything is
// found.
func (s *sweep) all(maps []Mapping, stacks *stackUses) error {
	still := stacks.still(s.p.PID)
	for i := range maps {
		m := &maps[i]
		if !m.writable() || !m.readable() || m.Path == "[vvar]" {
			continue
		}
		r := m.Range
		use, own := stacks.own[r.Hi]
		if s.stack = own && r.Contains(use.sp); s.stack {
			r.Lo = use.sp
		} else if dead, ok := stacks.ended(s.p, maps, m); ok && still {
			r.Lo = dead.Hi
		}
		err := s.region(r)
		if errors.Is(err, ptrace.ErrManyPages) {
			for i := range s.found {
				s.found[i] = true
			}
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// sweep looks through memory for pointers into records.
type sweep struct {
	p       *Process
	records []*record
	found   []bool
	span    specs.Range[specs.Addr]
	buf     []byte
	// pages is nil if nothing tells which pages have content; unknown counts the
	// bytes of which it is not known.
	pages   *ptrace.PageMap
	unknown uint64
	// stack is set while a thread's own stack is searched. Nothing on it
	// returns into the records in proven.
	stack  bool
	proven []*record
	// slots are words that lead to finders.
	slots map[specs.Addr]bool
}

// sweepSize is the size of the pieces that are read, in bytes.
const sweepSize = 1 << 20

// region reads the pages of r that have content and looks through them.
func (s *sweep) region(r specs.Range[specs.Addr]) error {
	runs, err := s.runs(r)
	if err != nil {
		return err
	}
	if s.buf == nil {
		s.buf = make([]byte, sweepSize)
	}
	var spans []ptrace.Span
	free := s.buf
	for len(runs) > 0 {
		n := min(runs[0].Size(), uint64(len(free)))
		spans = append(spans, ptrace.Span{Addr: runs[0].Lo, Buf: free[:n]})
		free = free[n:]
		if runs[0].Lo += specs.Addr(n); runs[0].Size() == 0 {
			runs = runs[1:]
		}
		if len(free) > 0 && len(runs) > 0 {
			continue
		}
		if err := s.p.mem.ReadSpans(spans); err != nil {
			return err
		}
		for _, span := range spans {
			s.words(span.Addr, span.Buf[:span.N])
		}
		spans, free = spans[:0], s.buf
	}
	return nil
}

// runs returns the pages of r that have content. Without a page map it is all of
// them, of as much memory as can be read in a second or so.
func (s *sweep) runs(r specs.Range[specs.Addr]) ([]specs.Range[specs.Addr], error) {
	if s.pages != nil {
		return s.pages.Present(r)
	}
	const most = 4 << 30
	if s.unknown += r.Size(); s.unknown > most {
		return nil, ptrace.ErrManyPages
	}
	return []specs.Range[specs.Addr]{r}, nil
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
			if m := r.memory(); m.Contains(specs.Addr(w)) && !m.Contains(at) && !s.slots[at] && !s.stale(r, specs.Addr(w)) {
				s.found[j] = true
			}
		}
	}
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
