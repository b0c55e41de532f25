package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// redZone is how far below the stack pointer a leaf function keeps data.
// Source: psABI x86-64, 3.2.2; none elsewhere, where it does no harm.
const redZone = 128

// How much of each stack is read with those of all others, in bytes: what most
// threads use, and more where there are few.
const (
	firstRead    = 8 << 10
	longestRead  = 64 << 10
	allReadFirst = 512 << 10
)

// maxTogether bounds how many stacks are read at once.
const maxTogether = 512

// nextRead is the size of the pieces in which the rest is read.
const nextRead = 256 << 10

// inspector looks for threads inside zones.
//
// Preconditions of all methods: the threads are stopped.
type inspector struct {
	p     *Process
	zones []zone
	span  specs.Range[specs.Addr] // of all zones
	maps  []Mapping
	fresh bool // maps were read inside this stop
	// known are threads that existed when maps were first read.
	known map[*ptrace.Thread]bool
	// prover is nil until a first hit makes it worth its price. unproven is
	// set if a hit was taken for real for want of it.
	prover   *prover
	unproven bool
	// left are the patches out of use that a thread was found in; see zone.
	left []*record
	// clear are parked threads that are not inside, leftParked what of left they
	// are in.
	clear      map[*ptrace.Thread]bool
	leftParked []*record
	// early says that threads may run, and change mappings: whose stack cannot be
	// read is noted in unread. In a stop that is an error.
	early  bool
	unread map[*ptrace.Thread]bool
	// What the stop needs is made before it. first is the part of buf that is
	// for one stack, rest is for what does not fit.
	first     uint64
	buf, rest []byte
	reader    *ptrace.Reader
	spans     []ptrace.Span
	hits      []*hit
	stacks    []specs.Range[specs.Addr]
}

func newInspector(p *Process, zones []zone) *inspector {
	in := &inspector{p: p, zones: zones, clear: make(map[*ptrace.Thread]bool), unread: make(map[*ptrace.Thread]bool)}
	for i, z := range zones {
		if i == 0 {
			in.span = z.Range
		}
		in.span.Lo, in.span.Hi = min(in.span.Lo, z.Lo), max(in.span.Hi, z.Hi)
	}
	return in
}

// know reads the mappings while the given threads, which are all, run.
func (in *inspector) know(threads []*ptrace.Thread) error {
	in.known = make(map[*ptrace.Thread]bool, len(threads))
	for _, t := range threads {
		in.known[t] = true
	}
	// Taken and touched now, so that the stop does not wait for the kernel.
	in.reserve(min(len(threads)+len(threads)/8+1, maxTogether))
	maps, err := readMaps(in.p.PID)
	in.maps = maps
	return err
}

// reserve makes buffers for n threads, and touches them.
func (in *inspector) reserve(n int) {
	if cap(in.spans) >= n {
		return
	}
	in.first = min(max(uint64(allReadFirst/n), firstRead), longestRead)
	in.buf, in.rest = touched(n*int(in.first)), touched(nextRead)
	in.reader = ptrace.NewReader(in.p.mem, n)
	in.spans, in.hits, in.stacks = make([]ptrace.Span, n), make([]*hit, n), make([]specs.Range[specs.Addr], n)
	clear(in.spans) // the kernel gives the memory now
}

// touched returns n bytes of memory that the kernel has given already.
func touched(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	return b
}

// hit is a word that may be a return address into a zone.
type hit struct {
	zone *zone
	pc   specs.Addr
}

// busy returns the threads that are, or may be, inside a zone.
func (in *inspector) busy(threads []*ptrace.Thread) (all []Inside, err error) {
	for batch := range slices.Chunk(threads, maxTogether) {
		found, err := in.batch(batch)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// parked returns the parked threads that are inside. It is called before the stop:
// what they have on their stacks stays as it is as long as they are parked, and
// none is parked again. One whose stack cannot be read, since it is moved meanwhile, is
// left to the stop.
func (in *inspector) parked(g *ptrace.Group) ([]Inside, error) {
	threads := slices.DeleteFunc(g.Threads(), func(t *ptrace.Thread) bool { return !t.Parked() || in.clear[t] })
	if len(threads) == 0 {
		return nil, nil
	}
	in.fresh, in.left, in.early = false, nil, true
	defer func() { in.early = false }()
	clear(in.unread)
	var found []Inside
	for batch := range slices.Chunk(threads, maxTogether) {
		some, err := in.batch(batch)
		if err == nil {
			err = g.Serve()
		}
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	for _, t := range threads {
		in.clear[t] = !in.unread[t] && !slices.ContainsFunc(found, func(i Inside) bool { return i.TID == t.TID })
	}
	in.leftParked = append(in.leftParked, in.left...)
	return found, nil
}

// unclear are the threads that are to be looked at in the stop.
func (in *inspector) unclear(threads []*ptrace.Thread) []*ptrace.Thread {
	if len(in.clear) == 0 {
		return threads
	}
	return slices.DeleteFunc(slices.Clone(threads), func(t *ptrace.Thread) bool { return t.Parked() && in.clear[t] })
}

// batch is busy for as many threads as there are buffers for.
func (in *inspector) batch(threads []*ptrace.Thread) (all []Inside, err error) {
	in.reserve(len(threads))
	hits, stacks := in.hits[:len(threads)], in.stacks[:len(threads)]
	in.spans = in.spans[:0]
	for i, t := range threads {
		hits[i] = in.registers(t)
		if stacks[i], err = in.stack(t); in.skip(t, err) {
			stacks[i] = specs.Range[specs.Addr]{}
		} else if err != nil {
			return nil, err
		}
		n := min(stacks[i].Size(), in.first)
		in.spans = append(in.spans, ptrace.Span{Addr: stacks[i].Lo, Buf: in.buf[uint64(i)*in.first:][:n]})
	}
	if err := in.reader.ReadSpans(in.spans); err != nil {
		return nil, err
	}
	for i, t := range threads {
		if hits[i] == nil && !in.unread[t] {
			if hits[i], err = in.words(t, stacks[i], in.spans[i]); err != nil && !in.skip(t, err) {
				return nil, err
			}
			hits[i] = in.prove(t, hits[i])
		}
		if h := hits[i]; h != nil {
			all = append(all, Inside{TID: t.TID, Name: ptrace.Comm(in.p.PID, t.TID),
				Function: h.zone.function, Object: h.zone.object, PC: h.pc})
		}
	}
	return all, nil
}

// errStack is about a stack that is not where it is looked for.
var errStack = errors.New("its stack cannot be read")

// skip notes that a thread's stack could not be read, if that is not an error yet.
func (in *inspector) skip(t *ptrace.Thread, err error) bool {
	if !in.early || !errors.Is(err, errStack) {
		return false
	}
	in.unread[t] = true
	return true
}

// prove tells whether a word on a stack is what it looks like.
func (in *inspector) prove(t *ptrace.Thread, h *hit) *hit {
	switch {
	case h == nil:
		return nil
	case in.prover == nil:
		in.unproven = true
		return h
	}
	return in.prover.inside(in, t, h)
}

// registers looks at the program counter and, where a zone goes away or the
// architecture has a link register, at the others.
func (in *inspector) registers(t *ptrace.Thread) *hit {
	pc := t.Regs.PC()
	for i := range in.zones {
		z := &in.zones[i]
		if z.Contains(pc) && (z.going || !z.entry(pc)) && !in.leave(z) {
			return &hit{z, pc}
		}
		if !z.going {
			continue
		}
		for _, v := range t.Regs.General() {
			if z.Contains(specs.Addr(v)) && !in.leave(z) {
				return &hit{z, specs.Addr(v)}
			}
		}
	}
	if link, ok := t.Regs.Link(); ok {
		return in.word(link)
	}
	return nil
}

// leave reports whether threads may be in z, and notes that one is.
func (in *inspector) leave(z *zone) bool {
	if z.left != nil && !slices.Contains(in.left, z.left) {
		in.left = append(in.left, z.left)
	}
	return z.left != nil
}

// word reports the zone that a return address points into.
func (in *inspector) word(a specs.Addr) *hit {
	if !in.span.Contains(a) {
		return nil
	}
	for i := range in.zones {
		z := &in.zones[i]
		if !z.Contains(a) {
			continue
		}
		if !z.entry(a) && !in.leave(z) {
			return &hit{z, a}
		}
	}
	return nil
}

// stack returns the memory of the thread's stack that is in use.
func (in *inspector) stack(t *ptrace.Thread) (specs.Range[specs.Addr], error) {
	sp := t.Regs.SP()
	m := mappingAt(in.maps, sp)
	// A thread's own stack stays where it is while the thread lives. Anything
	// else may have become another mapping, or a longer one.
	if !in.fresh && (m == nil || !in.known[t] || !in.ownStack(t, m)) {
		if err := in.reread(); err != nil {
			return specs.Range[specs.Addr]{}, err
		}
		m = mappingAt(in.maps, sp)
	}
	if m == nil {
		return specs.Range[specs.Addr]{}, fmt.Errorf("thread %d (%s): %w: its stack pointer %v is nowhere", t.TID, ptrace.Comm(in.p.PID, t.TID), errStack, sp)
	}
	lo := max(sp-min(sp, redZone), m.Range.Lo) &^ 7
	return specs.Range[specs.Addr]{Lo: lo, Hi: m.Range.Hi}, nil
}

// ownStack reports whether m is the stack that the thread was made with: the C
// library keeps a thread's control block at the top of it.
func (in *inspector) ownStack(t *ptrace.Thread, m *Mapping) bool {
	if t.TID == in.p.PID {
		return m.Path == "[stack]"
	}
	tp, ok := t.Regs.ThreadPointer()
	return ok && m.Range.Contains(tp)
}

func (in *inspector) reread() error {
	maps, err := readMaps(in.p.PID)
	if err != nil {
		return err
	}
	in.maps, in.fresh = maps, true
	return nil
}

// words looks through a stack whose beginning has been read.
func (in *inspector) words(t *ptrace.Thread, stack specs.Range[specs.Addr], first ptrace.Span) (*hit, error) {
	if h := in.scan(t, first.Buf[:first.N]); h != nil {
		return h, nil
	}
	lo := first.Addr + specs.Addr(first.N)
	h, err := (*hit)(nil), error(nil)
	if first.N < len(first.Buf) {
		h, err = in.again(t, stack, in.stack, lo)
	} else if lo < stack.Hi {
		h, err = in.scanRange(t, specs.Range[specs.Addr]{Lo: lo, Hi: stack.Hi}, in.stack)
	}
	if h != nil || err != nil {
		return h, err
	}
	return in.elsewhere(t, stack)
}

// again looks through memory that ended before its mapping did, at the address at:
// the mapping was shortened since the mappings were read. of tells where the memory
// is now.
func (in *inspector) again(t *ptrace.Thread, r specs.Range[specs.Addr], of func(*ptrace.Thread) (specs.Range[specs.Addr], error), at specs.Addr) (*hit, error) {
	if !in.fresh {
		if err := in.reread(); err != nil {
			return nil, err
		}
	}
	now, err := of(t)
	if err != nil {
		return nil, err
	}
	if now == r {
		return nil, fmt.Errorf("thread %d (%s): %w at %v", t.TID, ptrace.Comm(in.p.PID, t.TID), errStack, at)
	}
	return in.scanRange(t, now, of)
}

// elsewhere looks through the thread's own stack if it runs on another one, as
// signal handlers and coroutines do. How much of it is in use is not known, so
// all of it counts.
func (in *inspector) elsewhere(t *ptrace.Thread, current specs.Range[specs.Addr]) (*hit, error) {
	other := func(t *ptrace.Thread) (specs.Range[specs.Addr], error) {
		own := in.own(t)
		if own == nil || !own.readable() || own.Range.Overlaps(current) || own.Range.Size() > 1<<30 {
			return specs.Range[specs.Addr]{}, nil
		}
		return own.Range, nil
	}
	r, _ := other(t)
	return in.scanRange(t, r, other)
}

// own returns the mapping that the thread's own stack is in, nil if it is not known.
func (in *inspector) own(t *ptrace.Thread) *Mapping {
	if t.TID == in.p.PID {
		i := slices.IndexFunc(in.maps, func(m Mapping) bool { return m.Path == "[stack]" })
		if i < 0 {
			return nil
		}
		return &in.maps[i]
	}
	if tp, ok := t.Regs.ThreadPointer(); ok {
		return mappingAt(in.maps, tp)
	}
	return nil
}

// scanRange reads and looks through memory of any length. of tells where it is if
// it cannot be read.
func (in *inspector) scanRange(t *ptrace.Thread, r specs.Range[specs.Addr], of func(*ptrace.Thread) (specs.Range[specs.Addr], error)) (*hit, error) {
	for lo := r.Lo; lo < r.Hi; {
		spans := []ptrace.Span{{Addr: lo, Buf: in.rest[:min(uint64(r.Hi-lo), nextRead)]}}
		if err := in.reader.ReadSpans(spans); err != nil {
			return nil, err
		}
		if h := in.scan(t, spans[0].Buf[:spans[0].N]); h != nil {
			return h, nil
		}
		lo += specs.Addr(spans[0].N)
		if spans[0].N < len(spans[0].Buf) {
			return in.again(t, r, of, lo)
		}
	}
	return nil, nil
}

// scan looks through words.
func (in *inspector) scan(t *ptrace.Thread, b []byte) *hit {
	lo, size := uint64(in.span.Lo), in.span.Size()
	for ; len(b) >= 8; b = b[8:] {
		w := t.Regs.StripPC(binary.LittleEndian.Uint64(b))
		if w-lo < size {
			if h := in.word(specs.Addr(w)); h != nil {
				return h
			}
		}
	}
	return nil
}
