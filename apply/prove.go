package apply

import (
	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/apply/internal/unwind"
	"github.com/fother/fother/specs"
)

// prover tells return addresses from stale words, by call frame information.
type prover struct {
	walker *unwind.Walker
	frames []unwind.Frame
}

// newProver reads the call frame information of all objects. The process runs.
func newProver(p *Process) *prover {
	tables := make([]*unwind.Object, len(p.objects))
	for i, o := range p.objects {
		// An object without any is one that no walk gets through.
		tables[i], _ = unwind.Load(p.mem, o.image)
	}
	find := func(a specs.Addr) *unwind.Object {
		for i, o := range p.objects {
			if o.image.Range.Contains(a) {
				return tables[i]
			}
		}
		return nil
	}
	if len(p.objects) == 0 {
		return nil
	}
	w, err := unwind.NewWalker(p.objects[0].image.Arch, p.mem, find)
	if err != nil {
		return nil
	}
	return &prover{walker: w}
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
			// The first instruction of a function that stays has not run yet.
			if z.Contains(f.At) && (i > 0 || z.going || f.At != z.Lo) {
				return &hit{z, f.PC}
			}
		}
	}
	if err != nil {
		return h
	}
	return nil
}
