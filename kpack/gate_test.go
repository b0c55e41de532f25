package kpack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// movable are bodies of functions of three arguments, the last of which is the
// address of g, whose first instructions depend on where they are, or do not.
var movable = []string{
	"mov %edi, %eax\n add $1, %eax\n ret",
	"lea table(%rip), %rax\n movl (%rax,%rdi,4), %eax\n ret",
	"sub $8, %rsp\n call g\n add $8, %rsp\n ret",
	"jmp g",
	"1: jmp 2f\n .skip 20\n 2: lea 5(%rdi), %eax\n ret",
	"test %edi, %edi\n je 1f\n mov $7, %eax\n ret\n 1: mov $8, %eax\n ret",
	"dec %edi\n js 1f\n mov $7, %eax\n ret\n .skip 200\n 1: mov $8, %eax\n ret",
	"push %rax\n call *pointer(%rip)\n pop %rdx\n ret",
	"sub $8, %rsp\n call *%rdx\n add $8, %rsp\n ret",
	"push %r12\n mov %rdx, %r12\n call *%r12\n pop %r12\n ret",
	"call g\n add $3, %eax\n ret",
	"endbr64\n push %rbx\n mov %edi, %ebx\n lea 9(%rbx), %eax\n pop %rbx\n ret",
	"xor %eax, %eax\n ret",
	"cmpl $0x11223344, word(%rip)\n sete %al\n movzbl %al, %eax\n ret",
	"addl $2, word(%rip)\n movl word(%rip), %eax\n ret",
	"movzbl table+4(%rip), %eax\n ret",
	"push %rdx\n push %rdi\n 1: mov %edi, -8(%rsp)\n pop %rax\n pop %rdx\n ret",
	"jmp *pointer(%rip)",
	"jmp *%rdx",
	// The loop begins at the entry, and keeps data below the stack pointer.
	"1: add $3, %edi\n mov %edi, -8(%rsp)\n cmp $20, %edi\n jl 1b\n mov -8(%rsp), %eax\n ret",
}

// unmovable are bodies that cannot be copied, and why.
var unmovable = map[string]string{
	"push %rbx\n 1: dec %edi\n jns 1b\n pop %rbx\n ret": "may lead back",
	"mov %edi, %ecx\n jrcxz 1f\n nop\n 1: ret":          "no further than 127 bytes",
	"xor %eax, %eax\n syscall\n ret":                    "enters the kernel",
	"push %rax\n call *%rdx\n pop %rdx\n ret":           "where a call returns to",
	"push %rbx\n call *8(%rsp)\n ret":                   "stack pointer",
	".byte 6\n ret":                                     "not understood",
}

// split are bodies of which the first bytes, as many as the digit says, are in
// one page and the rest in the next.
var split = []string{
	"1push %rbp\n mov %rsp, %rbp\n push %rbx\n lea 4(%rdi), %eax\n pop %rbx\n pop %rbp\n ret",
	"2push %rbp\n mov %rsp, %rbp\n push %rbx\n lea 4(%rdi), %eax\n pop %rbx\n pop %rbp\n ret",
	"4push %rbp\n mov %rsp, %rbp\n call g\n pop %rbp\n ret",
	"3sub $8, %rsp\n call g\n add $8, %rsp\n ret",
	"2sub $0x1234, %rsp\n call g\n add $0x1234, %rsp\n ret",
	"3push %r12\n push %rbx\n lea table(%rip), %rax\n movl (%rax), %eax\n pop %rbx\n pop %r12\n ret",
	"6endbr64\n push %r15\n sub $24, %rsp\n call g\n add $24, %rsp\n pop %r15\n ret",
	"5xor %eax, %eax\n xor %edx, %edx\n mov %edi, %eax\n ret", // the jump just fits
}

func gateProgram(bodies []string) string {
	var s strings.Builder
	s.WriteString(".text\n.globl g\n.type g, @function\ng: lea 1000(%rdi), %eax\n ret\n.size g, .-g\n")
	for i, body := range bodies {
		align := ".balign 16"
		if body[0] >= '1' && body[0] <= '9' && body[1] != ':' {
			align, body = ".balign 4096\n.skip 4096-"+body[:1], body[1:]
		}
		fmt.Fprintf(&s, align+"\n.globl f%d\n.type f%[1]d, @function\nf%[1]d: %s\n.size f%[1]d, .-f%[1]d\n.skip 16, 0x90\n", i, body)
	}
	s.WriteString(".data\n.balign 8\npointer: .quad g\nword: .long 0x11223344\ntable: .long 3, 5, 7, 9\n")
	// The place where the patch will be, and its gates' word.
	s.WriteString(".globl cell\n.balign 8\ncell: .quad 0\n.section .room,\"ax\",@progbits\n.globl room\n.balign 4096\nroom: .skip 65536\n")
	s.WriteString(".section .rodata\n.globl functions, end\n.balign 8\nfunctions:\n")
	for i := range bodies {
		fmt.Fprintf(&s, ".quad f%d\n", i)
	}
	s.WriteString("end:\n.section .note.GNU-stack,\"\",@progbits\n")
	return s.String()
}

const gateMainC = `
#include <stdio.h>
typedef int f(int, int, int (*)(int));
extern f *functions[], *end[];
extern int g(int);
int main(void) {
	for (f **p = functions; p < end; p++)
		for (int x = 0; x < 3; x++) printf("%d %d\n", (int)(p - functions), (*p)(x, 5, g));
	return 0;
}
`

// gated builds the program, and the patch of all of its functions, which
// return 5000 and more.
func gated(t *testing.T, bodies []string) (bin string, p *Patch) {
	t.Helper()
	testenv.Needs(t, arch.X86_64.Tuple+"-gcc")
	at := filepath.Join(t.TempDir(), "gate")
	write(t, at+".s", gateProgram(bodies))
	write(t, at+"-main.c", gateMainC)
	fix := ".section .kpatch.text,\"ax\",@progbits\n"
	var functions []BuildFunction
	for i := range bodies {
		fix += fmt.Sprintf(".globl f%d.kpatch\n.type f%[1]d.kpatch, @function\nf%[1]d.kpatch: lea 5000+%[1]d(%%rdi), %%eax\n ret\n.size f%[1]d.kpatch, .-f%[1]d.kpatch\n", i)
		functions = append(functions, BuildFunction{Original: fmt.Sprint("f", i), Label: fmt.Sprintf("f%d.kpatch", i), Reason: "test"})
	}
	tool(t, "as", "-o", at+".p.o", write(t, at+".p.s", fix))
	tool(t, "as", "-o", at+".o", at+".s")
	tool(t, "gcc", "-no-pie", "-Wl,--build-id", "-o", at, at+".o", at+"-main.c")
	p, err := Build(BuildInput{
		Arch: arch.X86_64, Name: "gate", Original: open(t, at), Patched: open(t, at),
		Meta:  Meta{Name: "test", Series: specs.DefaultSeries, Level: 1},
		Units: []BuildUnit{{Name: "gate.s", Object: open(t, at+".p.o"), OriginalObject: open(t, at+".o"), Functions: functions}},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := p.Encode()
	if err == nil {
		p, err = Decode(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return at, p
}

// TestGates runs a program of which all entries lead to gates: shut, it gives
// the original's answers by way of the copies; open, those of the patch.
func TestGates(t *testing.T) {
	bodies := slices.Concat(movable, split)
	bin, p := gated(t, bodies)
	through := 0
	for _, f := range p.Functions {
		if f.Alone != "" {
			t.Errorf("function %s (%s): %s", f.Name, bodies[must(strconv.Atoi(f.Name[1:]))], f.Alone)
		}
		if f.Through != nil {
			through++
		}
	}
	if through != len(split)-1 {
		t.Errorf("%d functions have their jump later, want %d", through, len(split)-1)
	}
	want := tool(t, bin)
	for _, mode := range []string{"shut", "open", "direct"} {
		out, err := exec.Command(throughGates(t, bin, p, mode)).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", mode, err, out)
		}
		if mode == "open" {
			var b strings.Builder
			for i := range bodies {
				for x := range 3 {
					fmt.Fprintln(&b, i, 5000+i+x)
				}
			}
			want = b.String()
		}
		if string(out) != want {
			t.Errorf("%s:\n%s\nwant\n%s", mode, out, want)
		}
	}
}

func must(n int, err error) int {
	if err != nil {
		panic(err)
	}
	return n
}

// throughGates returns a copy of the program bin with the patch in its room, and
// gates at all entries, which are shut or open, or direct jumps.
func throughGates(t *testing.T, bin string, p *Patch, mode string) string {
	t.Helper()
	f := open(t, bin)
	file, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	put := func(at specs.Addr, b []byte) {
		for _, s := range f.Sections {
			if s.Addr != 0 && uint64(at)-uint64(s.Addr) < s.Size {
				copy(file[s.Offset+uint64(at)-uint64(s.Addr):], b)
				return
			}
		}
		t.Fatalf("%v is in no section", at)
	}
	room, cell := symbolAt(t, f, "room"), symbolAt(t, f, "cell")
	l, err := p.Layout(4096, 64)
	if err != nil {
		t.Fatal(err)
	}
	im, err := p.Link(l, room, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(room+specs.Addr(l.Text.Offset), im.Text)
	for i, fn := range p.Functions {
		to := im.Gates[i]
		if mode == "direct" {
			to = im.Jumps[i]
		}
		site, jump, err := Redirect(p.Arch, fn.Entry, fn.skip(), specs.Addr(fn.Original.Lo), to)
		if err != nil {
			t.Fatal(err)
		}
		if site/4096 != (site+specs.Addr(len(jump))-1)/4096 {
			t.Errorf("the jump of %s at %v is in two pages", fn.Name, site)
		}
		gate, err := GateCode(p.Arch, cell, 0x12345678, im.Copies[i], im.Jumps[i])
		if err != nil {
			t.Fatal(err)
		}
		put(site, jump)
		put(im.Gates[i], gate)
	}
	if mode == "open" {
		put(cell, []byte{0x78, 0x56, 0x34, 0x12})
	}
	out := bin + "-" + mode
	if err := os.WriteFile(out, file, 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

func symbolAt(t *testing.T, f *elfobj.File, name string) specs.Addr {
	t.Helper()
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(syms, func(s elfobj.Symbol) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no symbol %s", name)
	}
	return specs.Addr(syms[i].Value)
}

// TestAlone: what cannot be copied is told by name, and no error.
func TestAlone(t *testing.T) {
	for body, want := range unmovable {
		_, p := gated(t, []string{body})
		if f := p.Functions[0]; f.Copy != nil || !strings.Contains(f.Alone, want) {
			t.Errorf("%s: %+v, %q, want %q", body, f.Copy, f.Alone, want)
		}
	}
	two := []Function{{Name: "f", File: "a.c", Alone: "why"}, {Name: "g", File: "a.c", Alone: "why"}, {Name: "h"}}
	at := func(lo specs.VAddr) specs.Range[specs.VAddr] { return specs.Range[specs.VAddr]{Lo: lo, Hi: lo + 5} }
	if err := alone(two, []specs.Range[specs.VAddr]{at(0x1000), at(0x1800), at(0x3000)}); err != nil {
		t.Errorf("in one page: %v", err)
	}
	if err := alone(two, []specs.Range[specs.VAddr]{at(0x1000), at(0x2800), at(0x3000)}); err == nil || !strings.Contains(err.Error(), "function g: cannot change together") || strings.Contains(err.Error(), "function h") {
		t.Errorf("in two pages: %v", err)
	}
	_, p := gated(t, []string{"jmp *inner(%rip)\n nop\n .data\n .balign 8\n inner: .quad f0+2\n .text"})
	if f := p.Functions[0]; f.Copy != nil || !strings.Contains(f.Alone, "address of one of its first") {
		t.Errorf("%+v, %q", f.Copy, f.Alone)
	}
}

// TestSplitRefused: what cannot be taken back is told by name.
func TestSplitRefused(t *testing.T) {
	for _, a := range arch.All {
		m, err := machineOf(a)
		if err != nil {
			t.Fatal(err)
		}
		entry := unhex(t, "31c0 89f8 83c001 c3 9090909090909090")
		if a == arch.AArch64 { // paciasp is the only one that lies across
			entry = unhex(t, "3f2303d5 fd7bbfa9")
		}
		skip, undo, err := m.around(entry, 0x1ffc)
		if a == arch.AArch64 {
			if err != nil || skip != 4 || hex.EncodeToString(undo) != "bf2303d5" {
				t.Errorf("%d, % x, %v", skip, undo, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "across two pages") {
			t.Errorf("%d, %v", skip, err)
		}
	}
}

// TestMoveAArch64 has rows of first instructions at 0x1000 and what they become,
// as the assembler would have it at the same address.
func TestMoveAArch64(t *testing.T) {
	tests := []struct{ from, to, err string }{
		{"stp x29, x30, [sp, -16]!", "stp x29, x30, [sp, -16]!\n b _start+0x4", ""},
		{"b _start+0x1000", "b _start+0x1000", ""},
		{"bl _start+0x1000", "ldr x30, 1f\n b _start+0x1000\n 1: .quad _start+0x4", ""},
		{"b.ne _start+0x40", "b.ne 1f\n b 2f\n 1: b _start+0x40\n 2: b _start+0x4", ""},
		{"cbz x3, _start+0x40", "cbz x3, 1f\n b 2f\n 1: b _start+0x40\n 2: b _start+0x4", ""},
		{"cbnz w3, _start-0x10", "cbnz w3, 1f\n b 2f\n 1: b _start-0x10\n 2: b _start+0x4", ""},
		{"tbz x3, 35, _start+0x40", "tbz x3, 35, 1f\n b 2f\n 1: b _start+0x40\n 2: b _start+0x4", ""},
		{"adr x7, _start+0x234", "ldr x7, 1f\n b _start+0x4\n 1: .quad _start+0x234", ""},
		{"adr x7, _start-0x3", "ldr x7, 1f\n b _start+0x4\n 1: .quad _start-0x3", ""},
		{"adrp x9, _start+0x6000", "ldr x9, 1f\n b _start+0x4\n 1: .quad _start+0x6000", ""},
		{"blr x3", "mov x16, x3\n ldr x30, 1f\n br x16\n .balign 8, 0\n 1: .quad _start+0x4", ""},
		{"br x3", "br x3", ""},
		{"ret", "ret", ""},
		{"ldr x3, _start+0x40", "", "loads from near it"},
		{"ldr q3, _start+0x40", "", "loads from near it"},
		{"svc 0", "", "enters the kernel"},
		{".arch armv8.3-a\n blraaz x3", "", "signed pointer"},
		{".arch armv8.3-a\n retaa", ".arch armv8.3-a\n retaa", ""},
		{"paciasp\n bl _start+0x1000", "paciasp\n ldr x30, 1f\n b _start+0x1000\n .balign 8, 0\n 1: .quad _start+0x8", ""},
	}
	for _, tt := range tests {
		t.Run(tt.from, func(t *testing.T) {
			code := assembleAArch64(t, tt.from)
			m := &moved{}
			err := moveAArch64(m, code, 0x1000, len(code))
			if tt.err != "" || err != nil {
				if err == nil || tt.err == "" || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			want := assembleAArch64(t, tt.to)
			if got := settled(t, m); !bytes.Equal(got, want) {
				t.Errorf("%s, want %s", hex.EncodeToString(got), hex.EncodeToString(want))
			}
		})
	}
}

// assembleAArch64 returns code for address 0x1000.
func assembleAArch64(t *testing.T, text string) []byte {
	t.Helper()
	testenv.Needs(t, arch.AArch64.Tuple+"-as")
	at := filepath.Join(t.TempDir(), "a")
	tool(t, arch.AArch64.Tuple+"-as", "-o", at+".o", write(t, at+".s", ".globl _start\n_start: "+text+"\n"))
	tool(t, arch.AArch64.Tuple+"-ld", "-Ttext=0x1000", "-o", at, at+".o")
	s := open(t, at).Section(".text")
	data, err := s.Data()
	if err != nil || s.Addr != 0x1000 {
		t.Fatal(s.Addr, err)
	}
	return data
}

// settled returns moved code as it is in the patch, relocated for where it came
// from.
func settled(t *testing.T, m *moved) []byte {
	t.Helper()
	b := &builder{machine: machineAArch64, in: BuildInput{Arch: arch.AArch64}, patch: &Patch{}}
	var s Section
	f := Function{Name: "f", Original: specs.Range[specs.VAddr]{Lo: 0x1000, Hi: 0x1004}}
	pad := len(m.words) == 0
	size := len(m.code)
	b.placeCopy(&s, &f, m)
	for _, r := range s.Relocs {
		h := machineAArch64.relocs[r.Type]
		if err := h.put(s.Data[r.Offset:][:h.size], h.compute(uint64(f.Original.Lo), r.Addend, 0x1000+r.Offset)); err != nil {
			t.Fatal(err)
		}
	}
	if pad {
		return s.Data[:size]
	}
	return s.Data
}

// TestVectorLengths compares with the assembler.
func TestVectorLengths(t *testing.T) {
	testenv.Needs(t, arch.X86_64.Tuple+"-as")
	insns := []string{
		"vzeroupper", "vxorps %xmm0, %xmm1, %xmm2", "vaddsd 8(%rdi), %xmm0, %xmm1", "vmovaps %ymm8, 0x1234(%rax,%r9,4)",
		"vmovsd data(%rip), %xmm0", "vcmpsd $3, data(%rip), %xmm1, %xmm2", "vpshufd $7, %xmm0, %xmm1", "vpextrw $1, %xmm0, %eax",
		"vshufps $1, %xmm0, %xmm1, %xmm2", "vpslldq $3, %xmm0, %xmm1", "vpalignr $4, (%rsp), %xmm1, %xmm2", "vpshufb (%rsp,%rax), %xmm1, %xmm2",
		"andn data(%rip), %eax, %ecx", "vmovdqu64 data(%rip), %zmm17", "vpaddd 64(%rdi), %zmm1, %zmm2", "vpternlogd $3, (%rdi), %zmm1, %zmm2",
		"vaddsd (,%rax,8), %xmm0, %xmm1", "vmovd %edi, %xmm0", "vroundsd $4, data(%rip), %xmm0, %xmm0",
	}
	var s strings.Builder
	for i, in := range insns {
		fmt.Fprintf(&s, "i%d: %s\n", i, in)
	}
	fmt.Fprintf(&s, "i%d: .skip 16\ndata:\n", len(insns))
	at := filepath.Join(t.TempDir(), "v")
	tool(t, "as", "-o", at+".o", write(t, at+".s", s.String()))
	f := open(t, at+".o")
	code, err := f.Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	fields := map[uint64]bool{}
	for i, in := range insns {
		lo, hi := symbolAt(t, f, fmt.Sprint("i", i)), symbolAt(t, f, fmt.Sprint("i", i+1))
		size, field := vectorX86_64(code[lo:])
		if size != int(hi-lo) || (field != 0) != strings.Contains(in, "%rip") {
			t.Errorf("%s: length %d, field at %d, want length %d", in, size, field, hi-lo)
		}
		if field != 0 {
			fields[uint64(lo)+uint64(field)] = true
			if d := int(binary.LittleEndian.Uint32(code[int(lo)+field:])); int(hi)+d != int(symbolAt(t, f, "data")) {
				t.Errorf("%s: the distance at %d is %d", in, field, d)
			}
		}
	}
	if len(fields) < 5 {
		t.Errorf("%d distances", len(fields))
	}
}
