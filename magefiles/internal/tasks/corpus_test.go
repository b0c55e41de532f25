package tasks

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs/testenv"
)

// TestShare: what failed counts against the share, and what changes no code
// does not count.
func TestShare(t *testing.T) {
	var s share
	for pkg, v := range map[string]verdict{
		"a": {accepted: true, applied: true}, "b": {accepted: true}, "c": {refused: true}, "d": {same: true}, "e": {bad: true},
	} {
		s.add(corpus.Case{Package: pkg}, v)
	}
	want := "2 of 4 fixes of 5 packages become live patches (50 %); 1 were applied and reverted; 1 are refused, 1 failed, 1 more change no code"
	if s.String() != want {
		t.Errorf("%s; want %s", s, want)
	}
	if got := (share{}).String(); !strings.HasPrefix(got, "0 of 0") {
		t.Error(got)
	}
}

// TestHold: a process that ends too early is told with what it said, and so is a
// tool that fails.
func TestHold(t *testing.T) {
	testenv.Needs(t, "gcc")
	f := pipeline.Folder(t.TempDir())
	if err := os.Mkdir(f.Original(), 0o755); err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(f.Original(), "libx.so")
	cmd := exec.Command("gcc", "-shared", "-fPIC", "-x", "c", "-o", library, "-")
	cmd.Stdin = strings.NewReader("int f(void) { return 1; }")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	hold, err := buildLoader(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, command, fother, want string }{
		{"ends", "echo gone wrong >&2; exit 3", "true", "gone wrong"},
		{"not a library", "exec " + hold + " ./none.so", "true", "none.so"},
		{"stays", "exec " + hold + " ./libx.so", "true", ""},
		{"tool fails", "exec " + hold + " ./libx.so", "false", "fother patch: exit status 1"},
	}
	for _, tt := range tests {
		err := holdOne(t.Context(), tt.command, f.Original(), tt.fother, f, "libx.so")
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if ended := tt.name == "ends" || tt.name == "not a library"; errors.Is(err, errEnded) != ended {
			t.Errorf("%s: error %v", tt.name, err)
		}
	}
}
