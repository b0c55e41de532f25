package kpack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestCountCode holds the code that counts against what assemblers make of it.
func TestCountCode(t *testing.T) {
	const at, counter, to = 0x7f0000001040, 0x7f0000005008, 0x7f0000000800
	for a, text := range map[*arch.Arch]string{
		arch.X86_64: fmt.Sprintf("incq %d(%%rip)\n jmp .-7+%d\n .fill 4,1,0xcc\n", counter-at-7, to-at),
		arch.AArch64: fmt.Sprintf(`
	ldr x16, 1f
	ldr x17, [x16]
	add x17, x17, #1
	str x17, [x16]
	b .-16+%d
	nop
1:	.quad %d
`, to-at, counter),
	} {
		t.Run(a.Name, func(t *testing.T) {
			testenv.Needs(t, a.Tuple+"-as", a.Tuple+"-objcopy")
			m, err := machineOf(a)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, m.countSize)
			if err := m.count(got, at, counter, to); err != nil {
				t.Fatal(err)
			}
			base := filepath.Join(t.TempDir(), "x")
			write(t, base+".s", text)
			tool(t, a.Tuple+"-as", "-o", base+".o", base+".s")
			tool(t, a.Tuple+"-objcopy", "-O", "binary", "-j", ".text", base+".o", base)
			want, err := os.ReadFile(base)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("% x\nwant\n% x", got, want)
			}
			if m.count(got, at, counter, specs.Addr(at)+1<<40) == nil {
				t.Error("a function that is out of reach is no error")
			}
		})
	}
}
