package differ_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestPlaces: with debug data a refusal tells the line of the source, else that
// of the assembly as such.
func TestPlaces(t *testing.T) {
	const original = `int plain(int x) { return x; }

int switches(int x)
{
	__asm__(".pushsection .foo,\"aw\"\n.long 1\n.popsection");
	return x + 1;
}

int limit = 1;
`
	for _, cc := range []string{"gcc", "clang"} {
		for flag, want := range map[string][]string{
			"-g":  {"unit.c:4: switches: its inline assembly", "unit.c: limit: initial value of writable data changed: "},
			"-g0": {"unit.c: switches: its inline assembly switches to a section of its own (line ", "unit.c: limit: initial value of"},
		} {
			t.Run(cc+flag, func(t *testing.T) {
				testenv.Needs(t, cc)
				dir := t.TempDir()
				text := func(name, source string) []byte {
					path := filepath.Join(dir, name, "unit.c")
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
						t.Fatal(err)
					}
					cmd := exec.Command(cc, "--target="+arch.X86_64.Tuple, "-O2", flag, "-S", "-o", "-", "unit.c")
					if cc == "gcc" {
						cmd.Args = append(cmd.Args[:1], cmd.Args[2:]...)
					}
					cmd.Dir = filepath.Dir(path)
					out, err := cmd.Output()
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				in := differ.Input{Unit: "unit.c", Arch: arch.X86_64, Original: text("a", original),
					Patched: text("b", strings.NewReplacer("x + 1", "x * 3", "limit = 1", "limit = 2").Replace(original))}
				_, err := differ.Diff(in)
				refused, ok := errors.AsType[*differ.RefusalError](err)
				if !ok || len(refused.Refusals) < len(want) {
					t.Fatalf("error %v", err)
				}
				for _, line := range want {
					if !strings.Contains(err.Error(), line) {
						t.Errorf("the refusal\n%v\nhas not %q", err, line)
					}
				}
				for _, r := range refused.Refusals {
					assembly := "patched"
					if r.Text = assembly; r.Line == 0 || (r.Source == "") != strings.Contains(r.String(), "of the assembly text patched)") {
						t.Errorf("refusal %+v: %v", r, r)
					}
				}
			})
		}
	}
}
