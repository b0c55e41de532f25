package kpack

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
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

func open(t testing.TB, path string) *elfobj.File {
	t.Helper()
	f, err := elfobj.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// relocS refers with every relocation that ld resolves without a table of its
// own to a symbol of the patch and to one of the target.
var relocS = map[*arch.Arch]string{
	arch.X86_64: `
	.section .kpatch.text,"ax",@progbits
	.globl here
here:	call target
	call target@PLT
	leaq target+5(%rip), %rax
	leaq there-3(%rip), %rax
	movl $target+1, %eax
	movq $target-1, %rax
	movl target(,%rcx,4), %eax
	jne far
	.section .kpatch.rodata,"a",@progbits
	.quad target+0x123456789, here, there
	.quad target-., here-.
	.long target-., here-.
	.section .kpatch.data,"aw",@progbits
	.globl there
	.zero 24
there:	.quad far
`,
	arch.AArch64: `
	.section .kpatch.text,"ax",%progbits
	.globl here
here:	bl target
	b target
	b.eq far
	tbz x0, #3, far
	adr x1, far
	ldr x2, far
	adrp x3, target+4096
	add x3, x3, :lo12:target+4096
	ldrb w3, [x3, :lo12:there+1]
	ldrh w3, [x3, :lo12:there+2]
	ldr w3, [x3, :lo12:there+4]
	ldr x3, [x3, :lo12:there+8]
	ldr q3, [x3, :lo12:there+16]
	adrp x4, there
	movz x5, #:abs_g0:small
	movz x5, #:abs_g0_nc:target
	movk x5, #:abs_g1:target
	movk x5, #:abs_g1_nc:high+7
	movk x5, #:abs_g2:high
	movk x5, #:abs_g2_nc:highest
	movk x5, #:abs_g3:highest
	.section .kpatch.rodata,"a",%progbits
	.xword target+0x123456789, here, there
	.xword target-., here-.
	.word target-., here-.
	.section .kpatch.data,"aw",%progbits
	.globl there
	.balign 16
there:	.xword far
`,
}

// byHand makes a patch of an object without a target: target and far are the
// symbols of one with these addresses.
func byHand(t *testing.T, a *arch.Arch, f *elfobj.File, outside map[string]uint64) *Patch {
	t.Helper()
	p := &Patch{Arch: a}
	index := map[elf.SectionIndex]int{}
	for i, s := range f.Sections {
		if kind, ok := kinds[s.Name]; ok && s.Size > 0 {
			data, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			index[elf.SectionIndex(i)] = len(p.Sections)
			p.Sections = append(p.Sections, Section{Name: s.Name, Kind: kind, Align: s.Align, Size: s.Size, Data: data})
		}
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if v, ok := outside[s.Name]; ok {
			p.Symbols = append(p.Symbols, Symbol{Name: s.Name, Binding: Original, Value: v})
		} else {
			p.Symbols = append(p.Symbols, Symbol{Name: s.Name, Section: index[s.Section], Value: s.Value})
		}
	}
	for i, n := range index {
		relocs, err := f.Relocs(int(i))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range relocs {
			p.Sections[n].Relocs = append(p.Sections[n].Relocs, Reloc{r.Offset, r.Type, r.Symbol, r.Addend})
		}
	}
	return p
}

// TestLinkAsLd links each relocation as GNU ld does.
func TestLinkAsLd(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			testenv.Needs(t, a.Tuple+"-ld")
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			tool(t, a.Tuple+"-as", "-o", at("p.o"), write(t, at("p.s"), relocS[a]))
			const base = 0x10000000
			outside := map[string]uint64{"target": 0x10654320, "far": base + 0x7ff0, "small": 0x1234, "high": 0x123456789abc, "highest": 0xfedcba9876543210}
			p := byHand(t, a, open(t, at("p.o")), outside)
			l, err := p.Layout(4096, 64)
			if err != nil {
				t.Fatal(err)
			}
			im, err := p.Link(l, base, 0, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			script := "SECTIONS {\n"
			for i, s := range p.Sections {
				script += fmt.Sprintf("%s %#x : { *(%s) }\n", s.Name, base+l.Offset(i), s.Name)
			}
			args := []string{"-o", at("linked"), "-T", write(t, at("script"), script+"/DISCARD/ : { *(.note*) } }\n"), "--no-relax", "-e", "0", at("p.o")}
			for name, v := range outside {
				args = append(args, fmt.Sprintf("--defsym=%s=%#x", name, v))
			}
			tool(t, a.Tuple+"-ld", args...)
			linked := open(t, at("linked"))
			for i, s := range p.Sections {
				got := bytes.Join([][]byte{im.ROData, im.Text, im.Data}, nil)[l.Offset(i):][:s.Size]
				want, err := linked.ReadAt(specs.VAddr(base+l.Offset(i)), s.Size)
				if err != nil {
					t.Fatal(err)
				}
				for n := 0; n+4 <= len(got); n += 4 {
					if !bytes.Equal(got[n:n+4], want[n:n+4]) {
						t.Errorf("%s+%#x: % x, ld has % x", s.Name, n, got[n:n+4], want[n:n+4])
					}
				}
			}
			if t.Failed() {
				t.Log(tool(t, a.Tuple+"-objdump", "-dr", at("p.o")))
			}
		})
	}
}

// TestStubAsPLT: the stub of aarch64 is ld's PLT entry behind a landing pad.
// The lazy binder of the dynamic linker needs x16 to be the slot's address.
func TestStubAsPLT(t *testing.T) {
	a := arch.AArch64
	testenv.Needs(t, a.Tuple+"-gcc")
	dir := t.TempDir()
	lib, src := filepath.Join(dir, "l.so"), write(t, filepath.Join(dir, "l.c"), "int far(void); int near(void) { return far() + 1; }\n")
	tool(t, a.Tuple+"-gcc", "-shared", "-nostdlib", "-fPIC", "-O1", "-Wl,-z,lazy", "-o", lib, src)
	f := open(t, lib)
	plt := f.Section(".plt")
	x, err := newSymbolIndex(f, machineAArch64)
	if plt == nil || err != nil || !x.slots["far"].lazy {
		t.Fatalf("no lazy PLT entry: error %v, slots %v", err, x.slots)
	}
	data, err := plt.Data()
	if err != nil {
		t.Fatal(err)
	}
	want, at := data[32:48], specs.Addr(plt.Addr)+32 // behind PLT[0]
	got := make([]byte, machineAArch64.stubSize)
	if err := stubAArch64(got, at-4, specs.Addr(x.slots["far"].addr)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[4:20], want) {
		t.Errorf("stub % x, ld's % x", got[4:20], want)
	}
}

// hostC is a program that maps a linked patch and runs it.
const hostC = `
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static int calls = 40;
int limit = 7;
long impl(long a, long b, double c, long d, long e, long f, long g) { return a + 10*b + 100*(long)c + 1000*d + 10000*e + 100000*f + 1000000*g; }
void *resolver(void) { calls++; return impl; }
__attribute__((noinline)) long check(int n) { return calls + n; }
int main(int argc, char **argv) {
	if (argc < 6) return (int)check(argc) + abs(argc) + (int)labs(argc);
	char *base = (char *)strtoul(argv[2], 0, 0);
	size_t text = strtoul(argv[3], 0, 0), data = strtoul(argv[4], 0, 0), size = strtoul(argv[5], 0, 0);
	int fd = open(argv[1], O_RDONLY);
	if (mmap(base, size, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, fd, 0) != base) return 2;
	if (mprotect(base, text, PROT_READ) || mprotect(base + text, data - text, PROT_READ|PROT_EXEC)) return 3;
	long (*entry)(long) = (long (*)(long))strtoul(argv[6], 0, 0);
	printf("%ld", entry(3));
	printf(" %ld", entry(4));
	printf(" %d\n", calls);
	return 0;
}
`

// hostS is the patch of check: it counts in calls, calls an import through a
// lazy slot, a new import that is an indirect function with arguments in
// registers of both kinds, and one through the GOT.
const hostS = `
	.section .kpatch.text,"ax",@progbits
	.globl check.kpatch
	.type check.kpatch, @function
check.kpatch:
	.cfi_startproc
	endbr64
	pushq %rbx
	.cfi_adjust_cfa_offset 8
	movq %rdi, %rbx
	negq %rdi
	call labs@PLT
	cmpq %rax, %rbx
	jne .Lbad
	movq limit@GOTPCREL(%rip), %rax
	movslq (%rax), %rdi
	leaq fresh(%rip), %rax
	movslq (%rax), %rsi
	addl $1, (%rax)
	movsd .Lthree(%rip), %xmm0
	movl $4, %edx
	movl $5, %ecx
	movl $6, %r8d
	movq %rbx, %r9
	call llabs@PLT
	addl $1, calls(%rip)
	popq %rbx
	.cfi_adjust_cfa_offset -8
	ret
.Lbad:	ud2
	.cfi_endproc
	.size check.kpatch, .-check.kpatch
	.section .kpatch.rodata,"a",@progbits
	.balign 64
.Lthree:	.double 3.5
	.section .kpatch.data,"aw",@progbits
	.balign 32
	.local fresh
	.type fresh, @object
	.size fresh, 4
fresh:	.long 2
`

// TestLinkRuns runs what Link made, in a program with a fixed address.
func TestLinkRuns(t *testing.T) {
	testenv.Needs(t, arch.X86_64.Tuple+"-gcc")
	if out, err := exec.Command("uname", "-m").Output(); err != nil || strings.TrimSpace(string(out)) != arch.X86_64.Name {
		t.Skipf("the host is no %s", arch.X86_64) // other hosts have no tests of their own yet
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("a.c"), hostC)
	flags := []string{"-O1", "-fno-builtin", "-no-pie", "-fno-pie", "-Wl,--build-id", "-Wl,-z,lazy"}
	tool(t, "gcc", append(flags, "-c", "-o", at("a.o"), at("a.c"))...)
	tool(t, "gcc", append(flags, "-o", at("a"), at("a.o"))...)
	write(t, at("b.c"), strings.Replace(hostC, "calls + n;", "calls + n + llabs(n);", 1))
	tool(t, "gcc", append(flags, "-o", at("b"), at("b.c"))...)
	tool(t, "as", "-o", at("p.o"), write(t, at("p.s"), hostS))
	original := open(t, at("a"))
	p, err := Build(BuildInput{
		Arch: arch.X86_64, Name: "a", Original: original, Patched: open(t, at("b")), Meta: Meta{Name: "t", Series: specs.DefaultSeries, Level: 1},
		Units: []BuildUnit{{
			Name: "a.c", Object: open(t, at("p.o")), OriginalObject: open(t, at("a.o")),
			Functions: []BuildFunction{{Original: "check", Label: "check.kpatch"}}, Local: map[string]bool{"calls": true},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Layout(4096, 64)
	if err != nil {
		t.Fatal(err)
	}
	x, err := newSymbolIndex(original, machineX86_64)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	const base = 0x10000000
	im, err := p.Link(l, base, 0, func(s Symbol) (specs.Addr, bool, error) {
		asked++
		return specs.Addr(x.globals["resolver"].Value), true, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Errorf("the resolver was asked %d times, want once, for llabs", asked)
	}
	write(t, at("image"), string(bytes.Join([][]byte{im.ROData, im.Text, im.Data}, nil)))
	got := tool(t, at("a"), at("image"), fmt.Sprint(base), fmt.Sprint(l.Text.Offset), fmt.Sprint(l.Data.Offset), fmt.Sprint(l.Size), fmt.Sprint(uint64(im.Entries[0])))
	// calls is 40; each call of check adds one, and so does the resolver, which
	// is called once.
	if want := "3654327 4654337 43\n"; got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
}

// TestStubReach: a slot out of reach is an error, never a jump elsewhere.
func TestStubReach(t *testing.T) {
	for _, m := range []*machine{machineX86_64, machineAArch64} {
		b := make([]byte, m.thunkSize+m.stubSize)
		if err := m.stub(b, 0x1000, 0x2000); err != nil {
			t.Error(err)
		}
		if m.stub(b, 0x1000, 0x1000+1<<33) == nil || m.thunk(b, 0x1000, 0x1000+1<<33, 0) == nil {
			t.Errorf("%v: a slot 8 GiB away is no error", m.arch)
		}
	}
}

// TestCalled: what a copy leads to is told by its distance from the function's begin.
func TestCalled(t *testing.T) {
	p := &Patch{
		Arch: arch.AArch64,
		Symbols: []Symbol{
			{Name: "f", Binding: Original, Value: 0x1000, Func: true},
			{Name: "own", Binding: Carried, Func: true},
			{Name: "data", Binding: Original, Value: 0x9000},
		},
		Sections: []Section{{Relocs: []Reloc{
			{Type: uint32(elf.R_AARCH64_CALL26)},
			{Offset: 4, Type: uint32(elf.R_AARCH64_JUMP26), Addend: 0x700_0000},
			{Offset: 8, Type: uint32(elf.R_AARCH64_JUMP26), Addend: -0x800},
			{Offset: 12, Type: uint32(elf.R_AARCH64_CALL26), Symbol: 1},
			{Offset: 16, Type: uint32(elf.R_AARCH64_ADR_PREL_PG_HI21), Symbol: 2},
		}}},
	}
	if got, want := p.Called(), []specs.VAddr{0x1000, 0x700_1000, 0x800}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestThunkAArch64(t *testing.T) {
	b := make([]byte, machineAArch64.thunkSize)
	if err := putThunkAArch64(b, 0x400000, 0x412348, 0x1122334455667788); err != nil {
		t.Fatal(err)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	// adrp x16, 0x412000; str x17, [x16, #0x348]
	if got := [2]uint32{word(thunkAdrp), word(thunkAdrp + 1)}; got != [2]uint32{0xd0000090, 0xf901a611} {
		t.Errorf("the slot is addressed by %#x", got)
	}
	if lit := word(thunkLiteral) >> 5 & 0x7ffff; 4*(thunkLiteral+int(lit)) != 4*thunkAddress || binary.LittleEndian.Uint64(b[4*thunkAddress:]) != 0x1122334455667788 {
		t.Errorf("the resolver is loaded from +%d words", lit)
	}
}
