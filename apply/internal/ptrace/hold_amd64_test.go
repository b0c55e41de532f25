package ptrace

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// TestHoldCode holds the code that waits against what the assembler makes of
// its source.
func TestHoldCode(t *testing.T) {
	testenv.Needs(t, "as", "objcopy")
	for _, anyway := range []bool{false, true} {
		begin := "jz"
		if anyway {
			begin = "jmp"
		}
		source := fmt.Sprintf(`
	mov %%rdx, %%r8
0:	mov $4711, %%edi
	lea -128(%%rsp), %%rsi
	movl $0x100, (%%rsi)
	xor %%edx, %%edx
	xor %%r10d, %%r10d
	mov $61, %%eax
	syscall
waits:	cmp $-4, %%eax
	je 0b
	mov %%r8, %%rdx
	mov entry(%%rip), %%rax
	mov cell(%%rip), %%rcx
	test %%rcx, %%rcx
	jz 1f
	mov %%rax, (%%rcx)
1:	mov -128(%%rsp), %%edi
	test %%edi, %%edi
	%s 3f
	test $0x7f, %%dil
	jz 2f
	mov $0x100, %%edi
2:	shr $8, %%edi
	mov $231, %%eax
	syscall
3:	jmp *entry(%%rip)
	.balign 8, 0
entry:	.quad 0x123456789a
cell:	.quad 0x7ffc00000008
	.if (waits - 0b) + 3 - %d
	.error "the wait is elsewhere"
	.endif
`, begin, holdWaits)
		base := filepath.Join(t.TempDir(), "hold")
		if err := os.WriteFile(base+".s", []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"as", "-o", base + ".o", base + ".s"}, {"objcopy", "-O", "binary", "-j", ".text", base + ".o", base}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		want, err := os.ReadFile(base)
		if err != nil {
			t.Fatal(err)
		}
		got := newHold(4711, 0x123456789a, 0x7ffc00000008, anyway)
		if !bytes.Equal(got, want) {
			t.Errorf("anyway %v: % x\nwant\n% x", anyway, got, want)
		}
		if !isHold(got) || isHold(got[1:]) || isHold(make([]byte, len(got))) {
			t.Error("the code is not known again")
		}
		if waitsFor(os.Getpid(), got) || !waitsFor(os.Getppid(), newHold(os.Getpid(), 0, 0, anyway)) {
			t.Error("whose child it waits for is not known")
		}
	}
}
