package pipeline

import (
	"debug/elf"
	"errors"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/arch"
)

// copyRelocs are the relocations that have the dynamic linker copy data of a
// library into a program. Source: the psABIs.
var copyRelocs = map[*arch.Arch]uint32{
	arch.X86_64:  uint32(elf.R_X86_64_COPY),
	arch.AArch64: uint32(elf.R_AARCH64_COPY),
}

// newCopies returns the names of data in libraries of which only patched builds
// have copies: running programs do not.
func newCopies(pairs []compiler.Pair) (map[string]bool, error) {
	copies := map[string]bool{}
	var originals []map[string]bool
	for _, p := range pairs {
		if !p.Changed() {
			continue
		}
		was, err := copiesOf(p.Original.File)
		if err != nil {
			return nil, err
		}
		is, err := copiesOf(p.Patched.File)
		if err != nil {
			return nil, err
		}
		originals = append(originals, was)
		for name := range is {
			copies[name] = true
		}
	}
	// A unit is compared once for all programs: what one has a copy of is left
	// alone in all.
	for _, was := range originals {
		for name := range was {
			delete(copies, name)
		}
	}
	return copies, nil
}

// copiesOf returns the names of what a linked file has copies of.
func copiesOf(path string) (map[string]bool, error) {
	f, err := elfobj.Open(path)
	if err != nil {
		return nil, err
	}
	relocs, err := f.DynRelocs()
	if errors.Is(err, elfobj.ErrNoDynamic) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	at := map[uint64]bool{}
	for _, r := range relocs {
		if r.Type == copyRelocs[f.Arch] {
			at[r.Offset] = true
		}
	}
	if len(at) == 0 {
		return nil, nil // the dynamic section of a static program may come without symbols
	}
	symbols, err := f.DynSymbols()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, s := range symbols { // several may name one variable, as environ and __environ
		if s.Defined() && s.Type == elf.STT_OBJECT && at[s.Value] {
			names[s.Name] = true
		}
	}
	return names, nil
}
