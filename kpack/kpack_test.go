package kpack

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

const originalC = `
#include <string.h>
#include <stdio.h>
static int calls;
static int helper(int x) { return x * 3; }
int limit = 7;
__attribute__((noinline)) int check(const char *s) { calls++; return s[0] == 'a' ? helper(limit) : calls; }
int main(int argc, char **argv) { printf("%d %d\n", check(argv[0]), (int)strlen(argv[0])); return 0; }
`

// patchS is what package differ makes of a fix of check: it refers to a
// static variable, a global one, an import with a slot and one without.
var patchS = map[*arch.Arch]string{
	arch.X86_64: `
	.section .kpatch.text,"ax",@progbits
	.globl check.kpatch
	.type check.kpatch, @function
check.kpatch:
	.cfi_startproc
	endbr64
	addl $1, calls(%rip)
	leaq .Lfmt(%rip), %rsi
	pushq %rax
	.cfi_adjust_cfa_offset 8
	call strcmp@PLT
	call strlen@PLT
	movq strchr@GOTPCREL(%rip), %rcx
	popq %rdx
	.cfi_adjust_cfa_offset -8
	movl limit(%rip), %eax
	addl $1, fresh(%rip)
	jmp check
	.cfi_endproc
	.size check.kpatch, .-check.kpatch
	.section .kpatch.rodata,"a",@progbits
.Lfmt:	.string "a"
	.balign 8
	.quad check.kpatch
	.section .kpatch.bss,"aw",@nobits
	.local fresh
	.type fresh, @object
	.size fresh, 4
fresh:	.zero 4
`,
	arch.AArch64: `
	.section .kpatch.text,"ax",%progbits
	.globl check.kpatch
	.type check.kpatch, %function
check.kpatch:
	.cfi_startproc
	adrp x1, calls
	ldr w2, [x1, :lo12:calls]
	bl strcmp
	bl strlen
	adrp x3, :got:strchr
	ldr x3, [x3, :got_lo12:strchr]
	b check
	.cfi_endproc
	.size check.kpatch, .-check.kpatch
	.section .kpatch.rodata,"a",%progbits
	.xword check.kpatch
`,
}

func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fixture builds the program and the patch of check for it.
func fixture(t testing.TB, a *arch.Arch, flags ...string) *Patch {
	t.Helper()
	p, err := fixtureWith(t, a, "", flags...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fixtureWith adds more assembly to the patch.
func fixtureWith(t testing.TB, a *arch.Arch, more string, flags ...string) (*Patch, error) {
	t.Helper()
	dir, gcc, as := t.TempDir(), a.Tuple+"-gcc", a.Tuple+"-as"
	testenv.Needs(t, gcc)
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("a.c"), originalC)
	patched := strings.Replace(originalC, "calls++", `calls += !strcmp(s, "a") + (strchr(s, 'a') == s) + !!memchr(s, 0, 3)`, 1)
	write(t, at("b.c"), patched)
	compile := append([]string{"-O1", "-fno-builtin", "-Wl,--build-id"}, flags...)
	tool(t, gcc, append(compile, "-c", "-o", at("a.o"), at("a.c"))...)
	tool(t, gcc, append(compile, "-o", at("a"), at("a.o"))...)
	tool(t, gcc, append(compile, "-o", at("b"), at("b.c"))...)
	tool(t, as, "-o", at("p.o"), write(t, at("p.s"), patchS[a]+more))
	open := func(name string) *elfobj.File { return open(t, at(name)) }
	return Build(BuildInput{
		Arch: a, Name: "a", Original: open("a"), Patched: open("b"),
		Meta: Meta{Name: "test", Series: specs.DefaultSeries, Level: 1},
		Units: []BuildUnit{{
			Name: "a.c", Object: open("p.o"), OriginalObject: open("a.o"),
			Functions: []BuildFunction{{Original: "check", Label: "check.kpatch", Reason: "body changed"}},
			Local:     map[string]bool{"calls": true},
		}},
	})
}

func TestBuildBindsEverything(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			p := fixture(t, a, "-fPIE", "-pie")
			bound := map[string]Symbol{}
			for _, s := range p.Symbols {
				bound[s.Name] = s
			}
			for name, want := range map[string]Binding{
				"calls": Original, "check": Original, "check.kpatch": Carried, "strlen": Imported, "strcmp": Imported, "strchr": Imported,
			} {
				if got, ok := bound[name]; !ok || got.Binding != want {
					t.Errorf("symbol %s: %+v (present %v), want binding %d", name, got, ok, want)
				}
			}
			if bound["strlen"].Import.Slot == 0 {
				t.Error("strlen is called by the original, but has no slot")
			}
			if im := bound["strchr"].Import; im.Slot != 0 || !strings.HasPrefix(im.Version, "GLIBC_2.") {
				t.Errorf("strchr is new: %+v, want no slot and a version", im)
			}
		})
	}
}

func TestEncodeDecode(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			p := fixture(t, a)
			one, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Decode(one)
			if err != nil {
				t.Fatal(err)
			}
			two, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(one, two) {
				t.Error("encode, decode, encode gives other bytes")
			}
			path := filepath.Join(t.TempDir(), "p.kpatch")
			write(t, path, string(one))
			for _, cmd := range [][]string{{a.Tuple + "-readelf", "-aW"}, {a.Tuple + "-objdump", "-dr"}} {
				if out := tool(t, cmd[0], append(cmd[1:], path)...); strings.Contains(strings.ToLower(out), "warning") {
					t.Errorf("%v warns:\n%s", cmd, out)
				}
			}
		})
	}
}

// TestDecodeDamaged flips and cuts: the digest must notice each time, and what
// is reported must say that it is damage.
func TestDecodeDamaged(t *testing.T) {
	good, err := fixture(t, arch.X86_64).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x41
		if _, err := Decode(bad); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotPatch) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := Decode(good[:i]); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotPatch) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// FuzzDecode changes good files, and seals them again: else it would get no
// further than the digest. What is accepted can be laid out and linked.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("KPATCH1"))
	f.Add([]byte(elf.ELFMAG))
	for _, a := range arch.All {
		for _, p := range []*Patch{fixture(f, a), threadPatch(f, a)} {
			good, err := p.Encode()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(good)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		seal(b)
		p, err := Decode(b)
		if (p == nil) == (err == nil) {
			t.Fatalf("patch %v, error %v", p, err)
		}
		if err != nil {
			return
		}
		const most = 1 << 20 // for speed
		l, err := p.Layout(4096, 64)
		if err != nil || l.Size > most {
			return
		}
		resolve := func(Symbol) (specs.Addr, bool, error) { return 0x7f0000001000, false, nil }
		threads := func(Symbol) (ThreadPlace, error) { return ThreadPlace{Module: 1, Static: true}, nil }
		if im, err := p.Link(l, 0x7f0000800000, 0x7f0000000000, resolve, threads); err == nil && len(im.Entries) != len(p.Functions) {
			t.Errorf("%d entries for %d functions", len(im.Entries), len(p.Functions))
		}
	})
}

func TestLinkWithinReach(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			p := fixture(t, a, "-fPIE", "-pie")
			l, err := p.Layout(4096, 100)
			if err != nil {
				t.Fatal(err)
			}
			const bias = 0x555500000000
			resolve := func(s Symbol) (specs.Addr, bool, error) { return 0x7fff00001000, s.Name == "strchr", nil }
			im, err := p.Link(l, bias+0x1000000, bias, resolve, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(im.Entries) != 1 || uint64(len(im.ROData)+len(im.Text)+len(im.Data)) != l.Size {
				t.Errorf("image of %d+%d+%d bytes, entries %v, layout %+v", len(im.ROData), len(im.Text), len(im.Data), im.Entries, l)
			}
			if !bytes.Equal(im.ROData[:100], make([]byte, 100)) {
				t.Error("the header is not left alone")
			}
			if _, err := p.Link(l, bias+1<<40, bias, resolve, nil); err == nil || !strings.Contains(err.Error(), "does not fit") {
				t.Errorf("linked a terabyte away: %v", err)
			}
		})
	}
}
