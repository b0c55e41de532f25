package kpack

import (
	"bytes"
	"debug/elf"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// threadS finds variables of each thread in all ways that compilers do.
var threadS = map[*arch.Arch]string{
	arch.X86_64: `
	movq %fs:first@tpoff, %rax
	leaq second@tpoff+4(%rbx), %rcx
	movabsq $second@tpoff, %rdx
	movq second@gottpoff(%rip), %rax
	movq second@gottpoff(%rip), %r12
	addq second@gottpoff(%rip), %rbx
	addq second@gottpoff(%rip), %r9
	addq second@gottpoff(%rip), %rsp
	addq second@gottpoff(%rip), %r12
	.byte 0x66
	leaq second@tlsgd(%rip), %rdi
	.value 0x6666
	rex64
	call __tls_get_addr@PLT
	.byte 0x66
	leaq first@tlsgd(%rip), %rdi
	.byte 0x66
	rex64
	call *__tls_get_addr@GOTPCREL(%rip)
	leaq second@tlsld(%rip), %rdi
	call __tls_get_addr@PLT
	leaq second@tlsld(%rip), %rdi
	call *__tls_get_addr@GOTPCREL(%rip)
	movl second@dtpoff(%rax), %edx
	leaq second@tlsdesc(%rip), %rax
	call *second@tlscall(%rax)
`,
	arch.AArch64: `
	mrs x1, tpidr_el0
	add x0, x1, #:tprel_hi12:second, lsl #12
	add x0, x0, #:tprel_lo12_nc:second
	add x0, x0, #:tprel_lo12:first
	ldrb w2, [x0, #:tprel_lo12_nc:second]
	ldrh w2, [x0, #:tprel_lo12_nc:second]
	ldr w2, [x0, #:tprel_lo12:second]
	ldr x2, [x0, #:tprel_lo12_nc:second]
	movz x3, #:tprel_g1:second
	movk x3, #:tprel_g0_nc:second
	movz x3, #:tprel_g0:second
	movz x4, #:tprel_g2:second
	movk x4, #:tprel_g1_nc:second
	adrp x5, :gottprel:second
	ldr x5, [x5, #:gottprel_lo12:second]
	adrp x0, :tlsdesc:second
	ldr x1, [x0, #:tlsdesc_lo12:second]
	add x0, x0, #:tlsdesc_lo12:second
	.tlsdesccall second
	blr x1
`,
}

// importedS are the sequences that linkers turn into initial exec.
var importedS = map[*arch.Arch]string{
	arch.X86_64: `
	.byte 0x66
	leaq far@tlsgd(%rip), %rdi
	.value 0x6666
	rex64
	call __tls_get_addr@PLT
	leaq far@tlsdesc(%rip), %rax
	call *far@tlscall(%rax)
	movq far@gottpoff(%rip), %r12
`,
	arch.AArch64: `
	adrp x0, :tlsdesc:far
	ldr x1, [x0, #:tlsdesc_lo12:far]
	add x0, x0, #:tlsdesc_lo12:far
	.tlsdesccall far
	blr x1
	adrp x7, :gottprel:far
	ldr x7, [x7, #:gottprel_lo12:far]
`,
}

const variablesS = `
	.section .tdata,"awT",%progbits
	.globl first, second
	.type first, %object
first:	.quad 1
	.size first, 8
	.section .tbss,"awT",%nobits
	.balign 64
	.zero 64
	.type second, %object
second:	.zero 40
	.size second, 40
`

// TestThreadsAsLd binds thread-local references of an executable as GNU ld
// does: all models become local exec, or initial exec for other objects'
// variables.
func TestThreadsAsLd(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			testenv.Needs(t, a.Tuple+"-gcc")
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			tool(t, a.Tuple+"-as", "-o", at("far.o"), write(t, at("far.s"), "\t.section .tbss,\"awT\",%nobits\n\t.globl far\n\t.type far, %object\n\t.size far, 4\nfar:\t.zero 4\n"))
			tool(t, a.Tuple+"-ld", "-shared", "-o", at("libfar.so"), at("far.o"))
			const start = "\t.text\n\t.globl _start\n_start:\n"
			tool(t, a.Tuple+"-as", "-o", at("p.o"), write(t, at("p.s"), start+threadS[a]+".Limported:\n"+importedS[a]+variablesS))
			tool(t, a.Tuple+"-ld", "-pie", "-o", at("linked"), "--defsym=__tls_get_addr=_start", at("p.o"), at("libfar.so"))
			linked, code := open(t, at("linked")), relaxAll(t, a, open(t, at("p.o")), open(t, at("linked")))
			want, err := linked.Section(".text").Data()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(code, want[:len(code)]) {
				t.Errorf("the code is\n% x, ld's\n% x\n%s", code, want, tool(t, a.Tuple+"-objdump", "-dr", at("p.o")))
			}
		})
	}
}

// relaxAll rewrites the code of an object as for the executable that it is
// linked to, and relocates it there.
func relaxAll(t *testing.T, a *arch.Arch, object, linked *elfobj.File) []byte {
	t.Helper()
	m, err := machineOf(a)
	if err != nil {
		t.Fatal(err)
	}
	x, err := newSymbolIndex(linked, m)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := x.segment()
	block, err := ThreadOffset(a, p)
	if err != nil {
		t.Fatal(err)
	}
	text := object.Section(".text")
	code, err := text.Data()
	if err != nil {
		t.Fatal(err)
	}
	code = bytes.Clone(code)
	syms, err := object.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	relocs, err := object.Relocs(slices.IndexFunc(object.Sections, func(s elfobj.Section) bool { return s.Name == ".text" }))
	if err != nil {
		t.Fatal(err)
	}
	base := uint64(linked.Section(".text").Addr)
	for i := 0; i < len(relocs); i++ {
		r, next := relocs[i], elfobj.Reloc{}
		if i+1 < len(relocs) {
			next = relocs[i+1]
		}
		name := syms[r.Symbol].Name
		got, err := m.tls.relax(code, r, next, name != "far")
		if err != nil {
			t.Fatalf("%s at %#x: %v", m.relocName(r.Type), r.Offset, err)
		}
		if got.next {
			i++
		}
		if got.none {
			continue
		}
		h, ok := m.relocs[got.reloc.Type]
		s := uint64(block) + threadValue(x, name)
		if name == "far" {
			s = uint64(x.threads.slots["far"])
		}
		if wantUse := map[bool]threadUse{true: tlsInitial, false: tlsDirect}[name == "far"]; !ok || h.tls != wantUse {
			t.Fatalf("%s at %#x becomes %s", m.relocName(r.Type), r.Offset, m.relocName(got.reloc.Type))
		}
		if err := h.put(code[got.reloc.Offset:], h.compute(s, got.reloc.Addend, base+got.reloc.Offset)); err != nil {
			t.Fatal(err)
		}
	}
	return code
}

// threadValue returns the offset of a variable in the linked file's block.
func threadValue(x *symbolIndex, name string) uint64 {
	if s, ok := x.globals[name]; ok {
		return s.Value
	}
	for _, l := range x.locals[name] {
		return l.Value
	}
	return 0
}

// TestRelaxRefuses: code that is no known sequence is refused, however short.
func TestRelaxRefuses(t *testing.T) {
	for _, m := range []*machine{machineX86_64, machineAArch64} {
		for typ, h := range m.relocs {
			if h.tls == tlsNone || h.tls == tlsDirect || h.tls == tlsInBlock {
				continue
			}
			for n := range 20 {
				for offset := range uint64(n + 3) {
					code := bytes.Repeat([]byte{0xcc}, n)
					got, err := m.tls.relax(code, elfobj.Reloc{Offset: offset, Type: typ}, elfobj.Reloc{}, true)
					if err == nil && !got.none && m.relocs[got.reloc.Type].tls == tlsDirect {
						t.Errorf("%s at %d of %d bytes of no code is %+v", h.name, offset, n, got)
					}
				}
			}
		}
	}
}

// threadPatch builds a shared library with variables of each thread, and the patch
// of a function that uses them.
func threadPatch(t testing.TB, a *arch.Arch) *Patch {
	t.Helper()
	p, err := tryThreads(t, a, threadPatchS[a])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryThreads(t testing.TB, a *arch.Arch, assembly string) (*Patch, error) {
	t.Helper()
	dir, gcc := t.TempDir(), a.Tuple+"-gcc"
	testenv.Needs(t, gcc)
	at := func(name string) string { return filepath.Join(dir, name) }
	const c = "static __thread long filler, mine; __thread int shared; int get(int n) { filler += n; shared += n; return mine++ + n * 3; }\n"
	write(t, at("a.c"), c)
	write(t, at("b.c"), c+"\n")
	flags := []string{"-O2", "-fPIC", "-fno-section-anchors", "-Wl,--build-id"}
	tool(t, gcc, append(flags, "-c", "-o", at("a.o"), at("a.c"))...)
	for _, name := range []string{"a", "b"} {
		tool(t, gcc, append(flags, "-shared", "-o", at(name), at(name+".c"))...)
	}
	tool(t, a.Tuple+"-as", "-o", at("p.o"), write(t, at("p.s"), assembly))
	return Build(BuildInput{
		Arch: a, Name: "a", Original: open(t, at("a")), Patched: open(t, at("b")), Meta: Meta{Name: "t", Series: specs.DefaultSeries, Level: 1},
		Units: []BuildUnit{{
			Name: "a.c", Object: open(t, at("p.o")), OriginalObject: open(t, at("a.o")),
			Functions: []BuildFunction{{Original: "get", Label: "get.kpatch"}}, Local: map[string]bool{"mine": true},
		}},
	})
}

// TestThreadsRefused: what no process has a place for is refused by name.
func TestThreadsRefused(t *testing.T) {
	const end = "\n.size get.kpatch, .-get.kpatch\n"
	for _, c := range []struct{ assembly, want string }{
		{"movq %fs:mine@tpoff, %rax", `symbol "mine": is thread-local in another object than this one`},
		{"leaq shared@dtpoff(%rax), %rax", `symbol "shared": is thread-local in another object`},
		{"movq nowhere@gottpoff(%rip), %rax", `symbol "nowhere": is no thread-local variable of the original, nor an import`},
		{"movq get@gottpoff(%rip), %rax", `symbol "get": is no thread-local variable`},
		{"movq mine@gottpoff+8(%rip), %rax", `symbol "mine": is thread-local, and a place near it`},
		{"movq new@gottpoff(%rip), %rax\n.section .kpatch.data,\"awT\",%progbits\n.type new, %object\nnew: .quad 1\n.previous", "thread-local variables are not supported"},
	} {
		_, err := tryThreads(t, arch.X86_64, threadHead+c.assembly+end)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %s", c.assembly, err, c.want)
		}
	}
}

const threadHead = `
	.section .kpatch.text,"ax",%progbits
	.globl get.kpatch
	.type get.kpatch, %function
get.kpatch:
`

var threadPatchS = map[*arch.Arch]string{
	arch.X86_64: threadHead + `
	movq mine@gottpoff(%rip), %rax
	leaq mine@tlsdesc(%rip), %rax
	call *mine@tlscall(%rax)
	leaq mine@tlsld(%rip), %rdi
	call __tls_get_addr@PLT
	leaq mine@dtpoff(%rax), %rax
	.byte 0x66
	leaq shared@tlsgd(%rip), %rdi
	.value 0x6666
	rex64
	call __tls_get_addr@PLT
	ret
	.size get.kpatch, .-get.kpatch
`,
	arch.AArch64: threadHead + `
	adrp x0, :gottprel:mine
	ldr x0, [x0, #:gottprel_lo12:mine]
	adrp x0, :tlsdesc:mine
	ldr x1, [x0, #:tlsdesc_lo12:mine]
	add x0, x0, #:tlsdesc_lo12:mine
	.tlsdesccall mine
	blr x1
	ret
	.size get.kpatch, .-get.kpatch
`,
}

// TestThreadsOfLibrary: what the library has is used, the rest is made from
// where the variables are in the process.
func TestThreadsOfLibrary(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			p := threadPatch(t, a)
			var mine *Symbol
			for i, s := range p.Symbols {
				if s.Name == "mine" {
					mine = &p.Symbols[i]
				}
				if s.Name == "shared" && (s.Binding != Imported || s.Thread.Pair == 0) {
					t.Errorf("shared may be another object's: %+v, %+v", s, s.Thread)
				}
			}
			if mine == nil || mine.Binding != Original || mine.Thread == nil || mine.Thread.Fixed || mine.Size != 8 {
				t.Fatalf("mine is %+v", mine)
			}
			l, err := p.Layout(4096, 64)
			if err != nil {
				t.Fatal(err)
			}
			const base, bias = 0x7f0000800000, 0x7f0000000000
			resolve := func(Symbol) (specs.Addr, bool, error) { return base, false, nil }
			link := func(place ThreadPlace) (*Image, error) {
				return p.Link(l, base, bias, resolve, func(Symbol) (ThreadPlace, error) { return place, nil })
			}
			im, err := link(ThreadPlace{Module: 0x55, Offset: mine.Value, Static: true, TP: -0x123456})
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(im.ROData, []byte{0xaa, 0xcb, 0xed, 0xff, 0xff, 0xff, 0xff, 0xff}); n < 1 {
				t.Errorf("no slot with the offset from the thread pointer:\n% x", im.ROData[:256])
			}
			if _, err := link(ThreadPlace{Module: 0x55}); err == nil {
				t.Error("initial exec is linked to a block that is nowhere fixed")
			}
			if _, err := p.Link(l, base, bias, resolve, nil); err == nil {
				t.Error("linked without a process")
			}
		})
	}
}

// TestDecodeThreads: rows and symbols that do not fit each other are damage.
func TestDecodeThreads(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			good := threadPatch(t, a)
			data, err := good.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if two, err := again.Encode(); err != nil || !bytes.Equal(data, two) {
				t.Errorf("encode, decode, encode gives other bytes: %v", err)
			}
			path := write(t, filepath.Join(t.TempDir(), "p.kpatch"), string(data))
			if out := tool(t, a.Tuple+"-readelf", "-aW", path); bytes.Contains(bytes.ToLower([]byte(out)), []byte("warning")) {
				t.Errorf("readelf warns:\n%s", out)
			}
			for what, spoil := range map[string]func(p *Patch, s *Symbol){
				"slot outside":      func(p *Patch, s *Symbol) { s.Thread.Slot = p.Target.Image.Hi + 8 },
				"pair at the end":   func(p *Patch, s *Symbol) { s.Thread.Pair = p.Target.Image.Hi&^7 - 8 },
				"module unaligned":  func(p *Patch, s *Symbol) { s.Thread.Module = p.Target.Image.Lo + 4 },
				"descriptor before": func(p *Patch, s *Symbol) { s.Thread.Descriptor = ^specs.VAddr(7) },
				"offset":            func(_ *Patch, s *Symbol) { s.Thread.Offset = -1 << 62 },
				"outside the block": func(p *Patch, s *Symbol) { s.Value = p.Target.Threads + 1 },
				"no thread-local":   func(_ *Patch, s *Symbol) { s.Thread = nil },
				"fixed import":      func(_ *Patch, s *Symbol) { s.Binding, s.Thread.Fixed, s.Import = Imported, true, &Import{} },
				"huge block":        func(p *Patch, s *Symbol) { p.Target.Threads, s.Value = 1<<63, 1<<62 },
			} {
				p, err := Decode(data)
				if err != nil {
					t.Fatal(err)
				}
				for i := range p.Symbols {
					if s := &p.Symbols[i]; s.Thread != nil && s.Binding == Original {
						spoil(p, s)
						break
					}
				}
				if _, err := p.Encode(); err == nil {
					t.Errorf("%s: written, and read again", what)
				}
			}
		})
	}
}

// TestThreadOffset: where an executable's block is, and what is beyond measure.
func TestThreadOffset(t *testing.T) {
	for _, c := range []struct {
		a           *arch.Arch
		vaddr       uint64
		size, align uint64
		want        int64
	}{
		{arch.X86_64, 0x1000, 20, 8, -24},
		{arch.X86_64, 0x1000, 65, 64, -128},
		{arch.X86_64, 0x1008, 65, 64, 0},
		{arch.X86_64, 0, 65, 48, 0},
		{arch.X86_64, 0, 1 << 60, 8, 0},
		{arch.X86_64, 0, 8, 1 << 40, 0},
		{arch.AArch64, 0x1000, 20, 4, 16},
		{arch.AArch64, 0x1000, 20, 64, 64},
	} {
		got, err := ThreadOffset(c.a, elf.ProgHeader{Type: elf.PT_TLS, Vaddr: c.vaddr, Memsz: c.size, Align: c.align})
		if got != c.want || (err == nil) != (c.want != 0) {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
}
