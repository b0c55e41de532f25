package pipeline

import (
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// oracle compares the two linked builds of a target, which knows nothing of
// their assembly, and holds the patch against what it finds: whatever differs
// must be in the patch, and what is in the patch must be that of the patched
// build. It returns every finding.
//
// Objects that capture did not see, such as start-up code and the C library's,
// are the same in both builds byte for byte. What the linker makes of them
// depends on what it puts around them, and is no finding; own is all that is not
// in them.
func oracle(p *kpack.Patch, t Target, own *defined) error {
	report, err := compareLinked(t, own)
	if err != nil {
		return err
	}
	linked, err := linkedPatch(p)
	if err != nil {
		return err
	}
	findings, err := verify.CheckPatch(report, linked)
	if err != nil {
		return err
	}
	all := covered(p)
	all.Kept = t.Kept
	hooks := declaredHooks(report)
	if len(hooks) != len(p.Hooks) {
		return fmt.Errorf("the patched build declares %d hooks, and the patch has %d", len(hooks), len(p.Hooks))
	}
	all.Carried = append(all.Carried, hooks...)
	return linkedErrors(slices.Concat(uncovered(report, all, own), findings))
}

// oracleIdle is oracle for a target that no unit gives a patch for.
func oracleIdle(t Target, own *defined) error {
	report, err := compareLinked(t, own)
	if err != nil {
		return err
	}
	return linkedErrors(uncovered(report, verify.Covered{Kept: t.Kept}, own))
}

// compareLinked compares the two linked builds of a target.
func compareLinked(t Target, own *defined) (*verify.Report, error) {
	original, patched, err := t.open()
	if err != nil {
		return nil, err
	}
	return verify.Compare(original, patched, own.literals)
}

// uncovered is what differs and is not covered, but for what is in no object that
// capture saw.
func uncovered(r *verify.Report, c verify.Covered, own *defined) []verify.Finding {
	return slices.DeleteFunc(verify.Check(r, c).Missing, func(f verify.Finding) bool {
		return !own.names[f.Name] && !strings.HasPrefix(f.Name, ".") // a section
	})
}

func linkedErrors(findings []verify.Finding) error {
	var reasons []error
	for _, f := range findings {
		reasons = append(reasons, &LinkedError{f})
	}
	return errors.Join(reasons...)
}

// LinkedError means that a patch would not make of the original build what the
// patched build is, though it has all that the assembly of its units tells.
type LinkedError struct{ Finding verify.Finding }

// linkedDiffer is what is wrong with a patch of which there is a finding.
const linkedDiffer = "the linked builds differ from the patch: "

func (e *LinkedError) Error() string { return linkedDiffer + e.Finding.String() }

// Hint says what the author can do.
func (e *LinkedError) Hint() string {
	return "the linker made this difference: of several definitions of one name, such as a weak and a strong one or the copies of an inline function, it took another one, or its options or what it adds changed; leave those as they are, and do the work in a function of its own"
}

// declaredHooks are the names of what declares the hooks of the patched build, by
// fother.h. The patch has what they say, not them.
func declaredHooks(r *verify.Report) (names []string) {
	for _, d := range r.Data {
		if d.Verdict == verify.New && strings.Contains(d.Name, differ.HookPrefix) {
			names = append(names, d.Name)
		}
	}
	return names
}

// defined is what is in the objects that capture saw in both builds.
type defined struct {
	names    map[string]bool // of all that they define, by whatever means they were made
	literals map[string]bool // see [verify.Compare]
}

// definitions returns what the objects that capture saw define.
func definitions(store string) (*defined, error) {
	all, seen := &defined{map[string]bool{}, map[string]bool{}}, map[specs.Digest]bool{}
	for _, stage := range []specs.Stage{specs.StageOriginal, specs.StagePatched} {
		c, err := compiler.Load(store, stage)
		if err != nil {
			return nil, err
		}
		for _, u := range c.Units {
			if u.Arch == nil || seen[u.ObjectDigest] {
				continue
			}
			seen[u.ObjectDigest] = true
			if err := all.add(u.Object); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// add adds what an object defines.
func (d *defined) add(path string) error {
	object, err := elfobj.Open(path)
	if err != nil {
		return err
	}
	if err := verify.AddLiterals(d.literals, object); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	symbols, err := object.Symbols()
	if errors.Is(err, elfobj.ErrNoSymbols) {
		return nil
	}
	for _, s := range symbols {
		if s.Name != "" && s.Section != elf.SHN_UNDEF && s.Type != elf.STT_FILE && s.Type != elf.STT_SECTION {
			d.names[s.Name] = true
		}
	}
	return err
}

// covered is what a patch changes and brings along.
func covered(p *kpack.Patch) verify.Covered {
	var c verify.Covered
	for _, f := range p.Functions {
		c.Functions = append(c.Functions, verify.CoveredFunction{Name: f.Name, Original: f.Original})
	}
	for _, s := range p.Symbols {
		if s.Binding == kpack.Carried {
			c.Carried = append(c.Carried, strings.TrimSuffix(s.Name, differ.Suffix))
		}
	}
	return c
}

// linkedPatch links a patch right behind its target, as it would lie in
// memory, or before it if jumps do not reach over its data: then addresses may
// be below 0. Imports have addresses of their own, beyond both.
func linkedPatch(p *kpack.Patch) (verify.Patch, error) {
	const page, header = 4096, 4096 // bytes
	l, err := p.Layout(page, header)
	if err != nil {
		return verify.Patch{}, err
	}
	target := p.Target.Image
	base := (specs.Addr(target.Hi) + 2*page) &^ (page - 1)
	next := base + specs.Addr(l.Size) + page
	if first, _ := changedCode(p); uint64(next)-uint64(first) > p.Arch.JumpReach {
		next = base
		base = specs.Addr(target.Lo)&^(page-1) - specs.Addr(l.Size) - page
	}
	out := verify.Patch{Imports: map[specs.VAddr]string{}}
	image, err := p.Link(l, base, 0, func(s kpack.Symbol) (specs.Addr, bool, error) {
		next += verify.ImportRoom
		out.Imports[specs.VAddr(next)] = versioned(s)
		return next, false, nil
	}, threadPlaces(p, &out.Threads))
	if err != nil {
		return verify.Patch{}, err
	}
	out.Threads.Entries = threadEntries(p, l, specs.VAddr(base))
	out.Memory = pieces(p, l, slices.Concat(image.ROData, image.Text, image.Data), specs.VAddr(base))
	for _, s := range p.Symbols {
		if s.Binding == kpack.Carried && s.Size > 0 {
			at := specs.VAddr(base) + specs.VAddr(l.Offset(s.Section)+s.Value)
			out.Symbols = append(out.Symbols, verify.PatchSymbol{Name: strings.TrimSuffix(s.Name, differ.Suffix), Addr: at, Size: s.Size, Func: s.Func})
		}
	}
	for i, f := range p.Functions {
		out.Functions = append(out.Functions, verify.PatchFunction{Name: f.Name, Original: f.Original, Entry: specs.VAddr(image.Entries[i])})
	}
	return out, nil
}

// changedCode returns where the functions that a patch redirects begin and end.
func changedCode(p *kpack.Patch) (first, last specs.VAddr) {
	first, last = p.Target.Image.Hi, p.Target.Image.Lo
	for i := range p.Functions {
		first, last = min(first, p.Functions[i].Original.Lo), max(last, p.Functions[i].Original.Hi)
	}
	return first, last
}

// versioned is the name of an imported symbol.
func versioned(s kpack.Symbol) string {
	if s.Import == nil || s.Import.Version == "" {
		return s.Name
	}
	return s.Name + "@" + s.Import.Version
}

// threadPlaces gives the target and each imported variable a pretend block of
// thread-local storage, all of them in t.
func threadPlaces(p *kpack.Patch, t *verify.Threads) kpack.ThreadResolver {
	const gap = 4096 // bytes, so that a wrong place is in no block
	next := int64(gap)
	add := func(name string, size uint64) verify.ThreadBlock {
		b := verify.ThreadBlock{Name: name, Module: uint64(len(t.Blocks) + 1), TP: next, Size: size}
		next += int64(size) + gap
		t.Blocks = append(t.Blocks, b)
		return b
	}
	own := add("", p.Target.Threads)
	return func(s kpack.Symbol) (kpack.ThreadPlace, error) {
		b, offset := own, s.Value
		if s.Binding == kpack.Imported {
			b, offset = add(versioned(s), s.Size), 0
		}
		return kpack.ThreadPlace{Module: b.Module, Offset: offset, Static: true, TP: b.TP + int64(offset)}, nil
	}
}

// threadEntries are the patch's own GOT entries for thread-local storage.
func threadEntries(p *kpack.Patch, l kpack.Layout, base specs.VAddr) map[specs.VAddr]verify.ThreadEntry {
	all := map[specs.VAddr]verify.ThreadEntry{}
	note := func(at uint64, kind verify.ThreadEntry) {
		if at != 0 {
			all[base+specs.VAddr(at)] = kind
		}
	}
	for i := range p.Symbols {
		offset, pair, descriptor := l.ThreadEntries(i)
		note(offset, verify.ThreadOffset)
		note(pair, verify.ThreadPair)
		note(descriptor, verify.ThreadDescriptor)
	}
	return all
}

// pieces are the sections of a patch in its memory, and what the linker put
// behind those of each kind.
func pieces(p *kpack.Patch, l kpack.Layout, memory []byte, base specs.VAddr) []verify.Piece {
	var all []verify.Piece
	end := map[kpack.Kind]uint64{}
	for i, s := range p.Sections {
		at := l.Offset(i)
		if s.Name == kpack.SectionGate {
			continue // code of the original, to which nothing of the patch refers
		}
		all = append(all, verify.Piece{Name: s.Name, Addr: base + specs.VAddr(at), Data: memory[at:][:s.Size], Exec: s.Kind == kpack.Text, Write: s.Kind >= kpack.Data})
		kind := min(s.Kind, kpack.Data)
		end[kind] = max(end[kind], at+s.Size)
	}
	regions := map[kpack.Kind]kpack.Region{kpack.ROData: l.ROData, kpack.Text: l.Text, kpack.Data: l.Data}
	for _, kind := range []kpack.Kind{kpack.ROData, kpack.Text, kpack.Data} {
		r := regions[kind]
		at, hi := max(end[kind], r.Offset), r.Offset+r.Size
		if kind == kpack.Text {
			hi = l.Gates.Offset
		}
		all = append(all, verify.Piece{Addr: base + specs.VAddr(at), Data: memory[at:hi], Exec: kind == kpack.Text, Linker: true})
	}
	return all
}
