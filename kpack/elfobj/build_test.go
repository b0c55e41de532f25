package elfobj

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// compiler returns the path of the C compiler for a.
func compiler(t testing.TB, a *arch.Arch) string {
	t.Helper()
	testenv.Needs(t, a.Tuple+"-gcc")
	path, err := exec.LookPath(a.Tuple + "-gcc")
	if err != nil {
		testenv.Skip(t, a.Tuple+"-gcc is not installed")
	}
	return path
}

// outputs is the folder of what build made, which tests share.
var outputs string

func TestMain(m *testing.M) {
	var err error
	if outputs, err = os.MkdirTemp("", "elfobj"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(outputs)
	os.Exit(code)
}

// build compiles C source for a with flags, once, and returns the output's
// path.
func build(t testing.TB, a *arch.Arch, source string, flags ...string) string {
	t.Helper()
	key := sha256.Sum256(fmt.Append(nil, a, source, flags))
	dir := filepath.Join(outputs, hex.EncodeToString(key[:8]))
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		return filepath.Join(dir, "out")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	in, out := filepath.Join(dir, "in.c"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-O1", "-o", out, in}, flags...)
	if b, err := exec.Command(compiler(t, a), args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, b)
	}
	return out
}
