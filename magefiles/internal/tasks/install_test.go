package tasks

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestInstallCommands installs into a folder, twice, and runs what it finds
// there under each name.
func TestInstallCommands(t *testing.T) {
	dest := t.TempDir()
	var out bytes.Buffer
	for range 2 {
		out.Reset()
		if err := InstallCommands(t.Context(), &out, dest, "/opt/fother"); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dest, "opt/fother/bin")
	entries, err := os.ReadDir(bin)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if !strings.Contains(out.String(), filepath.Join(bin, e.Name())+"\n") {
			t.Errorf("%s is not told", e.Name())
		}
		target, err := os.Readlink(filepath.Join(bin, e.Name()))
		if err == nil && strings.Contains(target, "/") {
			t.Errorf("%s leads to %s: the folder cannot be moved", e.Name(), target)
		}
	}
	const want = "fother fother-c++ fother-cc fother-make fother-registry libcare-cc libcare-ctl libcare-patch-make"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	for name, arg := range map[string]string{
		"fother": "-h", "fother-make": "-h", "fother-cc": "--version", "fother-c++": "--version",
		"libcare-ctl": "-h", "libcare-cc": "--version", "libcare-patch-make": "--help",
	} {
		text, err := exec.Command(filepath.Join(bin, name), arg).CombinedOutput()
		// LibCare's command exits with 1 after its usage.
		if err != nil && name != "libcare-ctl" || len(text) == 0 {
			t.Errorf("%s %s: %v\n%s", name, arg, err, text)
		}
	}
}

func TestInstallCommandsRefuses(t *testing.T) {
	for _, test := range [][2]string{{"relative", "/usr"}, {"", "usr"}} {
		if err := InstallCommands(t.Context(), new(bytes.Buffer), test[0], test[1]); err == nil || !strings.Contains(err.Error(), "absolute") {
			t.Errorf("DESTDIR=%q PREFIX=%q: error %v", test[0], test[1], err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := InstallCommands(t.Context(), new(bytes.Buffer), file, ""); err == nil {
		t.Error("installed below a file")
	}
}
