package kpack

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/fother/fother/specs"
)

// Image is a patch relocated for one place in one process.
type Image struct {
	Base specs.Addr
	// ROData, Text and Data are what the layout's regions hold.
	ROData, Text, Data []byte
	// Entries are the run-time addresses of the new bodies, in the order of
	// Patch.Functions.
	Entries []specs.Addr
	// Jumps is where the jumps at the old entries lead: to the new bodies, or to
	// Function.Through, or with a counting layout to code that counts first.
	Jumps []specs.Addr
	// Counters are the addresses of the functions' counters, of 64 bits each, in
	// the order of Patch.Functions; nil if nothing is counted.
	Counters []specs.Addr
	// Copies are those of the copies of their first instructions, 0 for none,
	// and Gates where there is room for their gates, in the same order.
	Copies, Gates []specs.Addr
	Finder        Finder
	Hooks         HookPlace
	// Variables are the addresses of Patch.Variables, in their order.
	Variables []specs.Addr
}

// Resolver finds the run-time address of an imported symbol in the process, in
// the scope in which the dynamic linker would look for it. With ifunc, addr is
// that of the resolver function (STT_GNU_IFUNC), which Link arranges to be
// called by the first thread that calls the function. Link asks at most once
// for each symbol, and not for those that go through a GOT slot of the target.
type Resolver func(sym Symbol) (addr specs.Addr, ifunc bool, err error)

// Link relocates the patch for base, the run-time address of its memory (a
// multiple of the page size), in a process that has the target loaded with the
// given bias. l is the patch's layout. threads is not called for patches without
// thread-local symbols.
func (p *Patch) Link(l Layout, base specs.Addr, bias specs.Bias, resolve Resolver, threads ThreadResolver) (*Image, error) {
	m, err := machineOf(p.Arch)
	if err != nil {
		return nil, err
	}
	if len(l.Shared) != 0 && len(l.Shared) != len(p.Variables) {
		return nil, fmt.Errorf("%d addresses for %d variables", len(l.Shared), len(p.Variables))
	}
	k := &linker{
		patch: p, machine: m, shared: p.sharedVariables(l), layout: l, base: base, bias: bias, resolve: resolve, threads: threads,
		memory:   make([]byte, l.Size),
		resolved: make([]resolution, len(p.Symbols)),
	}
	for i, s := range p.Sections {
		copy(k.memory[l.sections[i]:], s.Data)
	}
	for i := range p.Symbols {
		if err := k.extras(i); err != nil {
			return nil, fmt.Errorf("symbol %q: %w", p.Symbols[i].Name, err)
		}
	}
	for i := range p.Sections {
		if err := k.relocate(i); err != nil {
			return nil, fmt.Errorf("section %s: %w", p.Sections[i].Name, err)
		}
	}
	finder, err := k.finder()
	if err != nil {
		return nil, fmt.Errorf("call frame information: %w", err)
	}
	hooks, err := k.hooks()
	if err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	im := &Image{Base: base, Finder: finder, Hooks: hooks, ROData: k.region(l.ROData), Text: k.region(l.Text), Data: k.region(l.Data)}
	for _, v := range p.Variables {
		im.Variables = append(im.Variables, k.carried(p.Symbols[v.Symbol]))
	}
	for i, f := range p.Functions {
		im.Entries = append(im.Entries, k.carried(p.Symbols[f.Symbol]))
		var before specs.Addr
		if f.Copy != nil {
			before = k.carried(p.Symbols[f.Copy.Symbol])
		}
		im.Copies = append(im.Copies, before)
		to := f.Symbol
		if f.Through != nil {
			to = f.Through.Symbol
		}
		jump, err := k.count(im, i, k.carried(p.Symbols[to]))
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", f.Name, err)
		}
		im.Jumps = append(im.Jumps, jump)
		im.Gates = append(im.Gates, base+specs.Addr(l.gates+uint64(i)*l.gateSize))
	}
	return im, nil
}

// linker holds the state of one Link.
type linker struct {
	patch    *Patch
	machine  *machine
	layout   Layout
	base     specs.Addr
	bias     specs.Bias
	resolve  Resolver
	threads  ThreadResolver
	memory   []byte
	resolved []resolution
	shared   map[int][]sharedVariable // by section
}

// sharedVariable is a variable of the patch for which another stands.
type sharedVariable struct {
	lo, hi uint64     // in the section
	at     specs.Addr // 0 if none stands for it
	joined bool
}

// sharedVariables lists them.
func (p *Patch) sharedVariables(l Layout) map[int][]sharedVariable {
	shared := map[int][]sharedVariable{}
	for i, at := range l.Shared {
		if s := p.Symbols[p.Variables[i].Symbol]; at != 0 || p.Variables[i].Joined {
			shared[s.Section] = append(shared[s.Section], sharedVariable{s.Value, s.Value + s.Size, at, p.Variables[i].Joined})
		}
	}
	for _, all := range shared {
		slices.SortFunc(all, func(a, b sharedVariable) int { return cmp.Compare(a.lo, b.lo) })
	}
	return shared
}

type resolution struct {
	done, ifunc bool
	addr        specs.Addr
}

func (k *linker) region(r Region) []byte { return k.memory[r.Offset : r.Offset+r.Size] }

func (k *linker) carried(s Symbol) specs.Addr {
	for _, v := range k.shared[s.Section] {
		// The place of a unit's share, by which all of its variables are reached: they
		// are shared together, and lie as they do here.
		if s.Name == "" && v.joined && v.lo >= s.Value {
			if v.at == 0 {
				break
			}
			return v.at - specs.Addr(v.lo-s.Value)
		}
		if v.at != 0 && v.lo <= s.Value && s.Value < v.hi {
			return v.at + specs.Addr(s.Value-v.lo)
		}
	}
	return k.base + specs.Addr(k.layout.sections[s.Section]+s.Value)
}

// address returns the value of symbol i: what its address is to the program.
func (k *linker) address(i int) (specs.Addr, error) {
	s := k.patch.Symbols[i]
	switch s.Binding {
	case Carried:
		return k.carried(s), nil
	case Original:
		return k.bias.Addr(specs.VAddr(s.Value)), nil
	}
	r, err := k.lookup(i)
	if err != nil {
		return 0, err
	}
	if r.ifunc {
		return k.base + specs.Addr(k.layout.symbols[i].stub), nil
	}
	return r.addr, nil
}

// lookup resolves import i, once.
func (k *linker) lookup(i int) (resolution, error) {
	r := &k.resolved[i]
	if !r.done {
		addr, ifunc, err := k.resolve(k.patch.Symbols[i])
		if err != nil {
			return *r, err
		}
		if ifunc && k.layout.symbols[i].stub == 0 {
			return *r, fmt.Errorf("is an indirect function, but not referred to as a function")
		}
		*r = resolution{done: true, addr: addr, ifunc: ifunc}
	}
	return *r, nil
}

// extras fills in what the layout gave symbol i.
func (k *linker) extras(i int) error {
	s, x := k.patch.Symbols[i], k.layout.symbols[i]
	if s.Thread != nil {
		return k.thread(s, x)
	}
	at := func(off uint64) specs.Addr { return k.base + specs.Addr(off) }
	if x.got != 0 {
		addr, err := k.address(i)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(k.memory[x.got:], uint64(addr))
	}
	if x.stub == 0 {
		return nil
	}
	if s.Import.Slot != 0 {
		return k.machine.stub(k.memory[x.stub:], at(x.stub), k.bias.Addr(s.Import.Slot))
	}
	r, err := k.lookup(i)
	if err != nil {
		return err
	}
	if err := k.machine.stub(k.memory[x.stub:], at(x.stub), at(x.slot)); err != nil {
		return err
	}
	first := r.addr
	if r.ifunc {
		if err := k.machine.thunk(k.memory[x.thunk:], at(x.thunk), at(x.slot), r.addr); err != nil {
			return err
		}
		first = at(x.thunk)
	}
	binary.LittleEndian.PutUint64(k.memory[x.slot:], uint64(first))
	return nil
}

// relocate applies the relocations of section i.
func (k *linker) relocate(i int) error {
	s := k.patch.Sections[i]
	for _, r := range s.Relocs {
		h, ok := k.machine.relocs[r.Type]
		if !ok {
			return fmt.Errorf("offset %#x: relocation type %d is not supported", r.Offset, r.Type)
		}
		off := k.layout.sections[i] + r.Offset
		target, err := k.target(h, r.Symbol)
		if err == nil {
			if h.call {
				target = k.branchTo(r, k.base+specs.Addr(off), target)
			}
			v := h.compute(uint64(target), r.Addend, uint64(k.base)+off)
			err = h.put(k.memory[off:off+uint64(h.size)], v)
		}
		if err != nil {
			return fmt.Errorf("offset %#x: %s to %q: %w", r.Offset, h.name, k.patch.Symbols[r.Symbol].Name, err)
		}
	}
	return nil
}

// target returns S of the psABI's formulas: the symbol's address, or that of
// its GOT entry or stub.
func (k *linker) target(h howto, i int) (specs.Addr, error) {
	s, x := k.patch.Symbols[i], k.layout.symbols[i]
	switch {
	case s.Thread != nil:
		return k.threadTarget(h, s, x)
	case h.got && x.got != 0:
		return k.base + specs.Addr(x.got), nil
	case h.got:
		return k.bias.Addr(s.Import.Slot), nil
	case x.stub != 0 && (h.branch || h.low):
		return k.base + specs.Addr(x.stub), nil
	}
	return k.address(i)
}
