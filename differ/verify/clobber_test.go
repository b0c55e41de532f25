package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
)

// TestRegisters: what may change a register that has a page, or the word of the stack that
// it is put in, has it forgotten; what does not, does not.
func TestRegisters(t *testing.T) {
	const cc, source = "aarch64-linux-gnu-gcc", "testdata/registers.S"
	a := build(t, cc, source)
	names, r := differing(t, a, build(t, cc, source, "GROW"))
	changes := 0
	for _, f := range r.Functions {
		changed, keeps := strings.HasPrefix(f.Name, "changes_"), strings.HasPrefix(f.Name, "keeps_")
		if differs := slices.Contains(names, f.Name); differs != changed && (changed || keeps) {
			t.Errorf("%s differs: %v", f.Name, differs)
		}
		if changed {
			changes++
		}
	}
	if changes == 0 {
		t.Error("there are none")
	}
	if t.Failed() {
		explain(t, r)
	}
}

// manySites is a function of n calls, each with an entry in the exception table.
func manySites(t testing.TB, n int) *elfobj.File {
	t.Helper()
	var code, table strings.Builder
	for i := range n {
		fmt.Fprintf(&code, ".Lc%d:\tbl\tmain\n", i)
		fmt.Fprintf(&table, "\t.uleb128 .Lc%d-main\n\t.uleb128 4\n\t.uleb128 .Lpad-main\n\t.uleb128 0\n", i)
	}
	source := filepath.Join(t.TempDir(), "sites.S")
	text := fmt.Sprintf(`	.globl main
	.type main, %%function
main:
	.cfi_startproc
	.cfi_personality 0x1b, main
	.cfi_lsda 0x1b, .Ltable
	adrp	x19, main
%s.Lpad:	ret
	.cfi_endproc
	.size main, .-main
	.section .gcc_except_table,"a",%%progbits
.Ltable:
	.byte	0xff, 0xff, 1
	.uleb128 2f-1f
1:
%s2:
	.section .note.GNU-stack,"",%%progbits
`, &code, &table)
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return build(t, "aarch64-linux-gnu-gcc", source)
}

// BenchmarkManySites takes as long for each call if there are ten times as many.
func BenchmarkManySites(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		f := manySites(b, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if names, _ := differing(b, f, f); len(names) > 0 {
					b.Fatal(names)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/call")
		})
	}
}
