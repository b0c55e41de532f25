package pipeline

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// equalUnits are pairs of units whose text is equal, in files that do not exist.
func equalUnits(n int) compiler.Pair {
	var p compiler.Pair
	for i := range n {
		u := compiler.Unit{Source: "u" + strconv.Itoa(i) + ".c", Text: "does not exist", Arch: arch.X86_64, TextDigest: specs.DigestOf([]byte(strconv.Itoa(i)))}
		original, patched := u, u
		p.Units = append(p.Units, compiler.UnitPair{Original: &original, Patched: &patched})
	}
	return p
}

// TestEqualUnitsAreNotRead holds that the digest that capture took is all that is
// looked at of units whose text is equal.
func TestEqualUnitsAreNotRead(t *testing.T) {
	pair := equalUnits(3)
	other := *pair.Units[1].Patched
	other.TextDigest = specs.DigestOf([]byte("other"))
	pair.Units[1].Patched = &other
	d := &diffs{done: map[[2]specs.Digest]*diffResult{}}
	d.run(t.Context(), []compiler.Pair{pair})
	for i, u := range pair.Units {
		r := d.result(u)
		if equal := i != 1; equal != (r == nil) {
			t.Errorf("unit %d: %+v", i, r)
		} else if r != nil && r.err == nil {
			t.Error("a file that does not exist was compared")
		}
	}
}

// BenchmarkEqualUnits measures what a unit of 5 MB whose text is equal costs: to
// read and hash it when it is captured, and to compare it.
func BenchmarkEqualUnits(b *testing.B) {
	const size = 5 << 20
	b.Run("capture", func(b *testing.B) {
		name := filepath.Join(b.TempDir(), "u.s")
		if err := os.WriteFile(name, bytes.Repeat([]byte("\tmovq\t%rax, %rbx\n"), size/17), 0o600); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(size)
		for b.Loop() {
			text, err := os.ReadFile(name)
			if err != nil || specs.DigestOf(text) == (specs.Digest{}) {
				b.Fatal(err)
			}
		}
	})
	b.Run("compare", func(b *testing.B) {
		pair := equalUnits(1)
		b.SetBytes(2 * size)
		for b.Loop() {
			d := &diffs{done: map[[2]specs.Digest]*diffResult{}}
			if d.run(b.Context(), []compiler.Pair{pair}); d.result(pair.Units[0]) != nil {
				b.Fatal("the unit was compared")
			}
		}
	})
}
