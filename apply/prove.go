package apply

import (
	"cmp"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/apply/internal/unwind"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// prover tells return addresses from stale words, by call frame information.
type prover struct {
	walker *unwind.Walker
	frames []unwind.Frame
}

// tabled is code and its call frame information.
type tabled struct {
	specs.Range[specs.Addr]
	table *unwind.Object
}

// sortTables puts the smaller first: a patch or the vDSO may lie in a hole between the
// segments of an object, which are 64 KiB apart on aarch64.
func sortTables(code []tabled) {
	slices.SortStableFunc(code, func(a, b tabled) int { return cmp.Compare(a.Size(), b.Size()) })
}

// findTable returns the table for an address, nil if there is none.
func findTable(code []tabled, a specs.Addr) *unwind.Object {
	for _, c := range code {
		if c.Contains(a) {
			return c.table
		}
	}
	return nil
}

// newProver reads the call frame information of all objects and patches. The
// process runs. It returns nil if nothing can be proved.
func newProver(p *Process) *prover {
	if len(p.objects) == 0 {
		return nil
	}
	a := p.objects[0].image.Arch
	var code []tabled
	for _, o := range p.objects {
		// An object without any is one that no walk gets through.
		if table, err := unwind.Load(p.mem, o.image); err == nil {
			code = append(code, tabled{o.image.Range, table})
		}
	}
	for _, r := range p.records {
		if table := patchFrames(p.mem, a, r); table != nil {
			code = append(code, tabled{r.text(), table})
		}
	}
	sortTables(code)
	w, err := unwind.NewWalker(a, p.mem, func(a specs.Addr) *unwind.Object { return findTable(code, a) })
	if err != nil {
		return nil
	}
	return &prover{walker: w}
}

// maxFrames bounds the call frame information of one patch, in bytes.
const maxFrames = 64 << 20

// patchFrames returns the call frame information of a patch, nil if it has
// none.
func patchFrames(mem memory, a *arch.Arch, r *record) *unwind.Object {
	if r.Frames.Size == 0 {
		return nil
	}
	s := unwind.Section{Addr: r.Base + specs.Addr(r.Frames.Offset), Data: make([]byte, r.Frames.Size)}
	if readFull(mem, s.Addr, s.Data) != nil {
		return nil
	}
	table, err := unwind.New(a, r.text(), unwind.Section{}, s)
	if err != nil {
		return nil
	}
	return table
}

// inside walks the stack of a thread that has a suspicious word h on it. It
// returns nil only if all frames are known and none is in a zone.
//
// Preconditions: the thread is stopped.
func (pr *prover) inside(in *inspector, t *ptrace.Thread, h *hit) *hit {
	regs := unwind.Registers{PC: t.Regs.PC(), PACMask: t.Regs.PACMask()}
	copy(regs.R[:], t.Regs.DWARF())
	var err error
	pr.frames, err = pr.walker.Walk(&regs, pr.frames[:0])
	for i, f := range pr.frames {
		for j := range in.zones {
			z := &in.zones[j]
			if z.holds(f, i == 0) && !in.leave(z) {
				return &hit{z, f.PC}
			}
		}
	}
	if err != nil {
		return h
	}
	return nil
}

// holds reports whether frame f, the innermost or not, is in z.
func (z *zone) holds(f unwind.Frame, innermost bool) bool {
	switch {
	case z.overwritten:
		return z.Contains(f.PC) && f.PC != z.Lo
	case innermost && !z.going && f.At == z.Lo:
		return false // the first instruction of a function that stays has not run yet
	}
	return z.Contains(f.At)
}
