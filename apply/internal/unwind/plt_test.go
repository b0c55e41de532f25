package unwind

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// pltLinks are ways to link that make tables of all forms.
var pltLinks = map[string][]string{
	"bfd": {"-Wl,-z,lazy"}, "bfd-now": {"-Wl,-z,now"}, "bfd-static": {"-static"}, "bfd-static-pie": {"-static-pie"},
	"bfd-bti":     {"-no-pie", "-fno-pie", "-mbranch-protection=standard", "-Wl,-z,force-bti"},
	"bfd-pac":     {"-mbranch-protection=standard", "-Wl,-z,pac-plt", "-Wl,-z,force-bti"},
	"bfd-bti-pac": {"-no-pie", "-fno-pie", "-mbranch-protection=standard", "-Wl,-z,pac-plt", "-Wl,-z,force-bti"},
	"bfd-library": {"-shared", "-fPIC"}, "bfd-tlsdesc": {"-shared", "-fPIC", "-DTLS", "-Wl,-z,lazy"},
	"gold": {"-Wl,-z,lazy"}, "gold-static": {"-static"},
	"lld": {"-Wl,-z,lazy"}, "lld-static": {"-static"}, "lld-static-pie": {"-static-pie"},
	"lld-bti":     {"-no-pie", "-fno-pie", "-mbranch-protection=standard", "-Wl,-z,force-bti"},
	"lld-bti-pac": {"-no-pie", "-fno-pie", "-mbranch-protection=standard", "-Wl,-z,pac-plt", "-Wl,-z,force-bti"},
	"mold":        {"-Wl,-z,lazy"}, "mold-static": {"-static"},
}

// linked is an aarch64 program that is mapped, but does not run.
type linked struct {
	file   *elfobj.File
	bias   uint64
	mem    memory
	walker *Walker
}

// objects are chains.c as it was compiled for aarch64, by options.
type objects map[string]string

// object compiles chains.c with those of flags that are not the linker's.
func (o objects) object(t *testing.T, flags []string) string {
	t.Helper()
	own := slices.DeleteFunc(slices.Clone(flags), func(f string) bool { return f[:2] == "-W" || f[:2] == "-s" || f == "-no-pie" })
	key := strings.Join(own, " ")
	if o[key] == "" {
		o[key] = compile(t, arch.AArch64, "chains.c", append([]string{"-O2", "-c"}, own...)...)
	}
	return o[key]
}

// link makes a program of object with the linker that name begins with.
func link(t *testing.T, name, object string, flags []string) *linked {
	t.Helper()
	linker, _, _ := strings.Cut(name, "-")
	if linker == "lld" || linker == "mold" { // gcc looks for a cross linker
		testenv.Needs(t, "ld."+linker)
		found, err := exec.LookPath("ld." + linker)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.Symlink(found, filepath.Join(dir, "ld."+linker)); err != nil {
			t.Fatal(err)
		}
		flags = append([]string{"-B" + dir}, flags...)
	}
	path := filepath.Join(t.TempDir(), "program")
	args := append([]string{"-fuse-ld=" + linker, "-o", path, object}, flags...)
	if out, err := exec.Command(arch.AArch64.Tuple+"-gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	f, err := elfobj.Open(path) // its section headers say what the table is
	if err != nil {
		t.Fatal(err)
	}
	l := &linked{file: f}
	if f.Type == elf.ET_DYN {
		l.bias = 0x7f0000000000
	}
	r := f.Image()
	l.mem = memory{addr: uint64(r.Lo) + l.bias, b: make([]byte, r.Size())}
	for _, p := range f.Segments {
		if p.Type != elf.PT_LOAD {
			continue
		}
		data, err := f.ReadAt(specs.VAddr(p.Vaddr), p.Filesz)
		if err != nil {
			t.Fatal(err)
		}
		copy(l.mem.b[p.Vaddr-uint64(r.Lo):], data)
	}
	l.load(t)
	return l
}

// load reads the program from its memory, which has no section headers.
func (l *linked) load(t *testing.T) {
	t.Helper()
	img, err := elfobj.OpenImage(l.mem, specs.Addr(l.mem.addr))
	if err != nil {
		t.Fatal(err)
	}
	o, err := Load(l.mem, img)
	if err != nil {
		t.Fatal(err)
	}
	if l.walker, err = NewWalker(arch.AArch64, l.mem, func(specs.Addr) *Object { return o }); err != nil {
		t.Fatal(err)
	}
	l.walker.stack.reset()
}

// entries are the entries of the tables, in memory: up to the branch that ends each.
func (l *linked) entries() (all []specs.Range[specs.Addr]) {
	for i := range l.file.Sections {
		s := &l.file.Sections[i]
		if !slices.Contains([]string{".plt", ".iplt", ".plt.got"}, s.Name) {
			continue
		}
		lo, at := uint64(0), uint64(s.Addr)+l.bias
		for end := at + s.Size; at < end; at += 4 {
			w := l.word(at)
			if lo == 0 && w != 0xd503201f { // nop
				lo = at
			}
			if lo != 0 && w&0xfffffc1f == 0xd61f0000 { // br
				all = append(all, specs.Range[specs.Addr]{Lo: specs.Addr(lo), Hi: specs.Addr(at + 4)})
				lo = 0
			}
		}
	}
	return all
}

func (l *linked) word(at uint64) uint32 { return le.Uint32(l.mem.b[at-l.mem.addr:]) }

// TestPLT: the rules for each instruction of procedure linkage tables, and that
// no other code without CFI is taken for one.
func TestPLT(t *testing.T) {
	compiled := objects{}
	for name, flags := range pltLinks {
		object := compiled.object(t, flags)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := link(t, name, object, flags)
			inside := map[uint64]bool{}
			count := map[string]int{}
			for _, e := range l.entries() {
				kind := l.checkEntry(t, e)
				count[kind]++
				for at := uint64(e.Lo); !l.unused(kind) && at < uint64(e.Hi); at += 4 {
					inside[at] = true
				}
			}
			t.Log(count)
			static := strings.Contains(name, "static")
			if count["entry"] < 6 || count["PLT0"] != 1 && !static {
				t.Errorf("%v: too few", count)
			}
			if resolver := l.walker.find(0).plt.resolver; !static && resolver == 0 {
				t.Error("no PLT0 is known")
			}
			if want := name == "bfd-tlsdesc"; want != (count["descriptor"] > 0) {
				t.Errorf("%v: entry for TLS descriptors: want %v", count, want)
			}
			l.checkOutside(t, inside)
		})
	}
}

// checkEntry checks the rules in one entry, and returns its kind.
func (l *linked) checkEntry(t *testing.T, e specs.Range[specs.Addr]) (kind string) {
	t.Helper()
	kind, pushed := "entry", uint64(0)
	for at := uint64(e.Lo); at < uint64(e.Hi); at += 4 {
		switch l.word(at) {
		case 0xa9bf0fe2: // stp x2, x3, [sp, #-16]!
			kind = "descriptor"
		case 0xa9bf7bf0: // stp x16, x30, [sp, #-16]!
			kind, pushed = "PLT0", at+4
		}
	}
	for at := uint64(e.Lo); at < uint64(e.Hi); at += 4 {
		r, err := l.walker.rulesAt(at)
		switch {
		case l.unused(kind):
			if !errors.Is(err, ErrNoCFI) {
				t.Errorf("%#x, %s: %v: want %v", at, kind, err, ErrNoCFI)
			}
		case err != nil:
			t.Errorf("%s at %#x: %#x: %v", kind, uint64(e.Lo), at, err)
		case !r.cfaSet || r.cfaReg != 31 || r.raColumn != 30 || r.cfaExpr != nil || len(r.others) > 0:
			t.Errorf("%#x: rules %+v", at, r)
		case pushed != 0 && at >= pushed && (r.cfaOff != 16 || r.ra.kind != offset || r.ra.off != -8):
			t.Errorf("%#x, behind the push: rules %+v", at, r)
		case (pushed == 0 || at < pushed) && (r.cfaOff != 0 || r.ra.kind != sameValue):
			t.Errorf("%#x: rules %+v", at, r)
		}
	}
	return kind
}

// unused reports whether entries of a kind are never executed: lazy TLS
// descriptors, and PLT0 where nothing is bound lazily.
func (l *linked) unused(kind string) bool {
	return kind == "descriptor" || kind == "PLT0" && l.walker.find(0).plt.resolver == 0
}

// checkOutside checks that no other instruction is in an entry.
func (l *linked) checkOutside(t *testing.T, inside map[uint64]bool) {
	t.Helper()
	o := l.walker.find(0)
	for _, text := range o.plt.text {
		for at := uint64(text.Lo); at < uint64(text.Hi); at++ {
			if !inside[at] && l.walker.pltRules(o, at) != nil {
				t.Fatalf("%#x is in an entry", at)
			}
		}
	}
}

// TestPLTDamaged: an entry of which one bit is another is none, unless the
// instruction is one before which it may begin.
func TestPLTDamaged(t *testing.T) {
	compiled := objects{}
	for _, name := range []string{"bfd", "bfd-static", "bfd-bti-pac"} {
		object := compiled.object(t, pltLinks[name])
		t.Run(name, func(t *testing.T) {
			l := link(t, name, object, pltLinks[name])
			o := l.walker.find(0)
			for _, e := range l.entries()[:3] {
				for bit := range 8 * e.Size() {
					at, changed := uint64(e.Hi)-4, uint64(e.Lo)+bit/32*4
					pad := l.word(changed) == 0xd503245f // bti c
					b := &l.mem.b[uint64(e.Lo)-l.mem.addr+bit/8]
					*b ^= 1 << (bit % 8)
					l.walker.stack.reset()
					if r := l.walker.pltRules(o, at); (r != nil) != pad {
						t.Errorf("bit %d of the entry at %v: rules %+v", bit, e.Lo, r)
					}
					if r := l.walker.pltRules(o, changed); r != nil {
						t.Errorf("bit %d of the entry at %v: rules %+v for the instruction that it is in", bit, e.Lo, r)
					}
					*b ^= 1 << (bit % 8)
				}
			}
		})
	}
}

// TestPLTNeedsRelocation: code like an entry's that branches elsewhere is none.
func TestPLTNeedsRelocation(t *testing.T) {
	compiled := objects{}
	for _, name := range []string{"bfd", "bfd-static"} {
		l := link(t, name, compiled.object(t, pltLinks[name]), pltLinks[name])
		o := l.walker.find(0)
		p, entries := o.plt, l.entries()
		at := uint64(entries[len(entries)-1].Lo)
		first := uint64(entries[0].Lo)
		if l.walker.pltRules(o, at) == nil || l.walker.pltRules(o, first) == nil {
			t.Fatalf("%s: no rules at %#x and %#x", name, at, first)
		}
		p.slots, p.resolver = nil, 0
		if l.walker.pltRules(o, at) != nil || l.walker.pltRules(o, first) != nil {
			t.Errorf("%s: rules without a relocation", name)
		}
	}
}

// TestPLTPushed: an entry is not taken for PLT0, nor PLT0 for an entry, where what is
// branched to is not what it would be.
func TestPLTPushed(t *testing.T) {
	const (
		slot = codeAddr + 0x800
		near = 0x90000010 // adrp x16, of the code's page
		zero = 0x90ffe010 // adrp x16, 0
	)
	// stp x16, x30, [sp, #-16]!; adrp; ldr x17, [x16, #…]; add x16, x16, #…; br x17
	at := func(adrp, offset uint32) []uint32 {
		return []uint32{0xa9bf7bf0, adrp, 0xf9400211 | offset/8<<10, 0x91000210 | offset<<10, 0xd61f0220}
	}
	for _, c := range []struct {
		name     string
		code     []uint32
		slots    []uint64
		resolver uint64
		known    bool
	}{
		{"PLT0", at(near, 0x800), nil, slot, true},
		{"PLT0, whose place is a function's too", at(near, 0x800), []uint64{slot}, slot, true},
		{"a push before an entry", at(near, 0x800), []uint64{slot}, slot + 8, false},
		{"a push before an entry, without a resolver", at(near, 0x800), []uint64{slot}, 0, false},
		{"address 0, without a resolver", at(zero, 0), nil, 0, false},
		{"an entry of the resolver's place", at(near, 0x800)[1:], []uint64{slot}, slot, true},
	} {
		var code []byte
		for _, w := range c.code {
			code = le.AppendUint32(code, w)
		}
		text := []specs.Range[specs.Addr]{{Lo: codeAddr, Hi: codeAddr + specs.Addr(len(code))}}
		o := &Object{Range: text[0], abi: abiAArch64, plt: &plt{text: text, slots: c.slots, resolver: c.resolver}}
		w, err := NewWalker(arch.AArch64, memory{codeAddr, code}, func(specs.Addr) *Object { return o })
		if err != nil {
			t.Fatal(err)
		}
		w.stack.reset()
		for i := range c.code {
			r := w.pltRules(o, codeAddr+4*uint64(i))
			pushed := c.code[0] == 0xa9bf7bf0 && i > 0
			if (r != nil) != c.known || r != nil && (r.cfaOff == 16) != pushed {
				t.Errorf("%s: instruction %d: rules %+v", c.name, i, r)
			}
		}
	}
}

// TestIrelativeShortSegment: a program without a dynamic section may have a segment that is
// shorter than the way to the next multiple of 8.
func TestIrelativeShortSegment(t *testing.T) {
	img := &elfobj.Image{Range: specs.Range[specs.Addr]{Lo: 0x400000, Hi: 0x402000}}
	mem := memory{addr: 0x400000, b: make([]byte, 0x2000)}
	const place = 0x400800
	copy(mem.b[0x1000:], slices.Concat(le.AppendUint64(nil, place), le.AppendUint64(nil, uint64(elf.R_AARCH64_IRELATIVE)), le.AppendUint64(nil, 0x400000)))
	for _, at := range []uint64{0x400000, 0x400001, 0x400007} {
		for size := range uint64(9) {
			img.Segments = []elf.ProgHeader{
				{Type: elf.PT_LOAD, Flags: elf.PF_R | elf.PF_X, Vaddr: at, Filesz: size, Memsz: 0x1000},
				{Type: elf.PT_LOAD, Flags: elf.PF_R, Vaddr: 0x400ffd, Filesz: 0x1000, Memsz: 0x1000},
			}
			want := 1
			if at != 0x400000 { // then its code begins behind the function
				want = 0
			}
			if slots := searchIrelative(mem, img, uint32(elf.R_AARCH64_IRELATIVE)); len(slots) != want || want > 0 && slots[0] != place {
				t.Errorf("%d bytes at %#x: %#x", size, at, slots)
			}
		}
	}
}

// FuzzPLT: what is in an entry never changes the stack pointer unnoticed, and
// ends with the branch.
func FuzzPLT(f *testing.F) {
	const slot = codeAddr + 0x800
	entry := []uint32{0xd503245f, 0x90000010, 0xf9440211, 0x91200210, 0xd503219f, 0xd61f0220}
	first := []uint32{0xd503245f, 0xa9bf7bf0, 0x90000010, 0xf9440611, 0x91202210, 0xd61f0220}
	for _, insns := range [][]uint32{entry, first} {
		var b []byte
		for _, w := range insns {
			b = le.AppendUint32(b, w)
		}
		f.Add(b, uint8(0))
		f.Add(b, uint8(12))
		f.Add(b[4:], uint8(8))
	}
	f.Fuzz(func(t *testing.T, code []byte, off uint8) {
		text := []specs.Range[specs.Addr]{{Lo: codeAddr, Hi: codeAddr + specs.Addr(len(code))}}
		o := &Object{Range: text[0], abi: abiAArch64, plt: &plt{text: text, slots: []uint64{slot}, resolver: slot + 8}}
		w, err := NewWalker(arch.AArch64, memory{codeAddr, code}, func(specs.Addr) *Object { return o })
		if err != nil {
			t.Fatal(err)
		}
		w.stack.reset()
		r := w.pltRules(o, codeAddr+uint64(off))
		if r == nil {
			return
		}
		pushed := r.cfaOff == 16
		for at := int(off); ; at += 4 {
			switch insn := le.Uint32(code[at:]); {
			case insn == 0xd61f0220: // br x17
				if pushed != (r.ra.kind == offset) {
					t.Fatalf("rules %+v", r)
				}
				return
			case insn == 0xa9bf7bf0 && !pushed: // stp x16, x30, [sp, #-16]!
			case insn == 0xd503245f, insn == 0xd503219f, insn&0x9f00001f == 0x90000010, insn&0xffc003ff == 0xf9400211, insn&0xffc003ff == 0x91000210:
			default:
				t.Fatalf("instruction %#x at %#x is in an entry", insn, at)
			}
		}
	})
}
