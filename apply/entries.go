package apply

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// entries are changes and all that it takes to read and write them: made before
// the stop, so that the stop allocates nothing.
type entries struct {
	mem     *ptrace.Mem
	changes []change // by rising address
	pages   []entryPage
	spans   []ptrace.Span // of the pages
	reader  *ptrace.Reader
}

// entryPage is what lies between the first and the last of some changes in one
// page, and includes them. A write of a page is made in buf.
type entryPage struct {
	changes []change
	at      specs.Addr
	buf     []byte
}

// readied are the changes of a transaction: all, and as its parts say; and what
// tells that the libraries are the same.
type readied struct {
	all, gated, deciding *entries
	notes                []noteOf
	noteSpans            []ptrace.Span
	noteReader           *ptrace.Reader
}

// noteOf is the note with the build-id of a library that changes.
type noteOf struct {
	record *record
	want   []byte
}

// makeReady is called before the stop.
func (p *Process) makeReady(t *transaction) {
	all := p.entries(t.changes)
	t.ready = readied{all: all, gated: p.entries(nil), deciding: all}
	p.readyNotes(t)
	if t.gated(p.page) {
		gated, deciding := t.parts(p.page)
		t.ready.gated, t.ready.deciding = p.entries(gated), p.entries(deciding)
	}
}

// readyNotes takes down the notes of what changes. The program itself cannot be
// closed; what is not there has no changes.
func (p *Process) readyNotes(t *transaction) {
	r := &t.ready
	for _, rec := range slices.Concat(t.ins, t.outs) {
		if len(t.changes) == 0 || rec.state == retired {
			continue
		}
		i := slices.IndexFunc(p.objects, func(o *object) bool { return o.image.Bias == rec.Bias })
		if i <= 0 || slices.ContainsFunc(r.notes, func(n noteOf) bool { return n.record.Bias == rec.Bias }) {
			continue
		}
		at, note, err := p.objects[i].image.NoteOfBuildID()
		if err != nil || p.objects[i].BuildID != rec.ID.BuildID {
			note = nil // never matches
		}
		r.notes = append(r.notes, noteOf{rec, note})
		r.noteSpans = append(r.noteSpans, ptrace.Span{Addr: at, Buf: make([]byte, len(note))})
	}
	r.noteReader = ptrace.NewReader(p.mem, len(r.notes))
}

func (p *Process) entries(changes []change) *entries {
	e := &entries{mem: p.mem}
	e.changes = slices.SortedFunc(slices.Values(changes), func(a, b change) int { return compareAddr(a.addr, b.addr) })
	for rest := e.changes; len(rest) > 0; {
		n := 1
		for n < len(rest) && uint64(rest[n].addr)/p.page == uint64(rest[0].addr)/p.page {
			n++
		}
		at, last := rest[0].addr, rest[n-1]
		e.pages = append(e.pages, entryPage{rest[:n], at, make([]byte, last.addr+specs.Addr(len(last.before))-at)})
		e.spans = append(e.spans, ptrace.Span{Addr: at, Buf: make([]byte, len(e.pages[len(e.pages)-1].buf))})
		rest = rest[n:]
	}
	e.reader = ptrace.NewReader(p.mem, len(e.pages))
	return e
}

func before(c *change) []byte { return c.before }
func after(c *change) []byte  { return c.after }
func jump(c *change) []byte   { return c.gate.jump }

// compare checks that memory holds one side of all changes.
func (p *Process) compare(changes []change, side func(*change) []byte) error {
	return p.entries(changes).compare(side)
}

func (e *entries) compare(side func(*change) []byte) error {
	if err := e.reader.ReadSpans(e.spans); err != nil {
		return err
	}
	for i := range e.pages {
		span := &e.spans[i]
		for j := range e.pages[i].changes {
			c := &e.pages[i].changes[j]
			lo := min(int(c.addr-span.Addr), span.N)
			if b := span.Buf[lo:min(lo+len(c.before), span.N)]; !bytes.Equal(b, side(c)) {
				return &MismatchError{Object: c.object, Function: c.function, Addr: c.addr,
					Why: fmt.Sprintf("it begins with % x: want % x", b, side(c))}
			}
		}
	}
	return nil
}

// store writes one side of all changes, with one write for each page: within it
// the kernel copies at once, whatever happens to the tool. What lies between
// two changes is written as it is.
func (e *entries) store(side func(*change) []byte) error {
	for i := range e.pages {
		g := &e.pages[i]
		if len(g.changes) > 1 {
			if err := readFull(e.mem, g.at, g.buf); err != nil {
				return err
			}
		}
		if err := g.write(e.mem, side); err != nil {
			return err
		}
	}
	return nil
}

// storeCompared is store with what compare has read.
//
// Preconditions: compare has found no difference, and nothing was written since.
func (e *entries) storeCompared(side func(*change) []byte) error {
	for i := range e.pages {
		copy(e.pages[i].buf, e.spans[i].Buf)
		if err := e.pages[i].write(e.mem, side); err != nil {
			return err
		}
	}
	return nil
}

func (g *entryPage) write(mem *ptrace.Mem, side func(*change) []byte) error {
	for i := range g.changes {
		copy(g.buf[g.changes[i].addr-g.at:], side(&g.changes[i]))
	}
	return mem.Write(g.at, g.buf)
}
