package apply

import (
	"encoding/binary"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// sweep looks through the writable memory of a process for words that point into
// span.
type sweep struct {
	p    *Process
	span specs.Range[specs.Addr]
	// see is told of such a word, and where it is.
	see func(at, word specs.Addr)
	buf []byte
	// pages is nil if nothing tells which pages have content; unknown counts the
	// bytes of which it is not known.
	pages   *ptrace.PageMap
	unknown uint64
}

// sweepSize is the size of the pieces that are read, in bytes.
const sweepSize = 1 << 20

// memory looks through all writable mappings, of each as much as part returns.
//
// Errors: [ptrace.ErrManyPages].
func (s *sweep) memory(maps []Mapping, part func(*Mapping) specs.Range[specs.Addr]) error {
	if pages, err := ptrace.OpenPageMap(s.p.PID); err == nil { // without it all pages are read
		defer pages.Close()
		s.pages = pages
	}
	for i := range maps {
		m := &maps[i]
		if !m.writable() || !m.readable() || m.Path == "[vvar]" {
			continue
		}
		if r := part(m); r.Size() > 0 {
			if err := s.region(r); err != nil {
				return err
			}
		}
	}
	return nil
}

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
		if w := binary.LittleEndian.Uint64(b[i:]); w-lo < size {
			s.see(a+specs.Addr(i), specs.Addr(w))
		}
	}
}
