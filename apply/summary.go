package apply

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// Summary is what there is to tell of a process.
type Summary struct {
	PID      int
	Name     string       // comm
	Objects  []ObjectInfo // by address
	Applied  []Applied    // those of [Process.Applied]
	Damaged  []string     // those of [Process.Damaged]
	Headless bool         // see [Process.Headless]
}

// Summary reads a process. Where all its code is of files that the reader knows, that
// is one look at its mappings and one at its memory, which has to hold the build-ids
// at the places where the files have them; else the process is opened. Errors are those of [Open].
func (r *Reader) Summary(pid int) (*Summary, error) {
	s, err := r.glance(pid)
	if !errors.Is(err, errUnknownCode) && !errors.Is(err, ErrGone) {
		return s, err
	}
	p, err := openBy(r, pid, false, func(p *Process) error {
		if err := p.refreshObjects(); err != nil { // the order of look-up does not matter here
			return err
		}
		return p.refreshRecords()
	})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	r.learn(p)
	s = &Summary{PID: pid, Name: p.Name, Objects: p.Objects(), Applied: p.Applied(), Damaged: p.Damaged(), Headless: p.Headless()}
	slices.SortStableFunc(s.Objects, func(a, b ObjectInfo) int { return cmp.Compare(a.Base, b.Base) })
	return s, nil
}

// errUnknownCode means that a process runs something that the reader does not know.
var errUnknownCode = errors.New("the process runs what is not known")

// glance is Summary for a process all of whose code is known.
//
// Errors: errUnknownCode, those of [Open] but [ErrHeadless].
func (r *Reader) glance(pid int) (*Summary, error) {
	g := glances.Get().(*glance)
	defer glances.Put(g)
	g.reset(r)
	err := g.ask(pid)
	if err == nil {
		err = g.readNotes(pid)
	}
	if errors.Is(err, errSeeMaps) || errors.Is(err, ptrace.ErrUntold) {
		g.reset(r)
		if err = g.mappings(pid); err == nil {
			err = g.readNotes(pid)
		}
	}
	if err != nil {
		return nil, err
	}
	s := &Summary{PID: pid, Name: ptrace.Comm(pid, pid), Objects: make([]ObjectInfo, len(g.objects)), Applied: []Applied{}}
	for i, o := range g.objects {
		s.Objects[i] = ObjectInfo{Path: o.file.path, BuildID: o.file.id, Base: o.base}
	}
	if !g.recorded {
		return s, nil
	}
	mem, err := ptrace.OpenMem(pid, false)
	if err != nil {
		return nil, err
	}
	p := &Process{PID: pid, mem: mem}
	defer p.Close()
	if p.records, p.damaged, err = findRecords(mem, g.bare, uint64(os.Getpagesize())); err != nil {
		return nil, err
	}
	s.Applied, s.Damaged = p.Applied(), p.damaged
	return s, nil
}

// vdsoTail is the known end of the process's vDSO.
func (g *glance) vdsoTail() []byte {
	i := slices.IndexFunc(g.objects, func(o placed) bool { return o.file.tail != nil })
	return g.objects[i].file.tail
}

// readNotes reads what has to be in the process's memory if the objects are what they
// seem to be, and whether there may be records.
func (g *glance) readNotes(pid int) error {
	for _, o := range g.objects {
		n := len(g.notes)
		g.notes = append(g.notes, o.file.note...)
		clear(g.notes[n:])
		g.spans = append(g.spans, ptrace.Span{Addr: o.base + o.file.offset, Buf: g.notes[n:len(g.notes):len(g.notes)]})
	}
	tail := len(g.spans)
	if g.vdsoEnd != 0 {
		size := len(g.vdsoTail())
		g.spans = append(g.spans, ptrace.Span{Addr: g.vdsoEnd - specs.Addr(size), Buf: g.page[:size]})
	}
	records := len(g.spans)
	g.spans = appendRecordSpans(g.spans, g.bare, uint64(os.Getpagesize()))
	if err := ptrace.ReadSpans(pid, g.spans); err != nil {
		return err
	}
	for i, o := range g.objects {
		if s := g.spans[i]; s.N < len(s.Buf) || string(s.Buf) != string(o.file.note) {
			return errUnknownCode
		}
	}
	if s := g.spans[tail:records]; len(s) > 0 && (s[0].N < len(s[0].Buf) || !bytes.Equal(s[0].Buf, g.vdsoTail())) {
		return errSeeMaps
	}
	for _, s := range g.spans[records:] {
		g.recorded = g.recorded || s.N == len(s.Buf) && string(s.Buf) == recordMagic
	}
	return nil
}
