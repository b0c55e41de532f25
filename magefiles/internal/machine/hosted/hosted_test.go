package hosted

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestTools: a tool of the host's reads what it is sent, and what it writes comes
// back; the next one finds that.
func TestTools(t *testing.T) {
	tuple := arch.AArch64.Tuple
	testenv.Needs(t, tuple+"-gcc")
	machine, host := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), host, t.TempDir(), tuple) }()
	shared := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	write("a.c", "int f(void) { return 1; }\n")
	write("main.c", "int f(void); int main(void) { return f(); }\n")
	for _, c := range []struct {
		command, says string
		status        int
		made          string
	}{
		{"no-such-tool", "is no tool of the host's", 127, ""},
		{"../../bin/sh -c true", "is no tool of the host's", 127, ""},
		{"gcc -c -o b.o none.c", "none.c", 1, ""},
		{"gcc -c -o a.o a.c", "", 0, "a.o"},
		{tuple + "-gcc -o prog main.c a.o", "", 0, "prog"}, // a.o is there still
		{"strip -s prog", "", 0, "prog"},
		{"gcc -o new/folder/prog main.c a.o", "", 0, "new/folder/prog"},
		{"readelf -h prog", "AArch64", 0, ""},
	} {
		args := strings.Fields(c.command)
		out, status, err := Client(machine, shared, args[0], args[1:])
		if err != nil || status != c.status || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v, %d, %q", c.command, err, status, out)
		}
		if c.made == "" {
			continue
		}
		if info, err := os.Stat(filepath.Join(shared, c.made)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", c.command, err)
		}
		if err := os.Remove(filepath.Join(shared, c.made)); err != nil {
			t.Error(err)
		}
	}
	machine.Close()
	if err := <-done; err == nil {
		t.Error("the host serves a closed port")
	}
}

// TestHostile: what one side says cannot make the other write elsewhere, or keep
// what is too long.
func TestHostile(t *testing.T) {
	if err := store(t.TempDir(), []file{{Path: "../x", Mode: 0o644}}); err == nil {
		t.Error("a file outside was written")
	}
	if err := receive(strings.NewReader("\xff\xff\xff\xff\xff\xff\xff\x7f"), &answer{}); err == nil || !strings.Contains(err.Error(), "message of") {
		t.Errorf("a message without end: %v", err)
	}
}
