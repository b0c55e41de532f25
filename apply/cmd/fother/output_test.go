package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain ä 漢\n", "plain ä 漢\n"},
		{"\x1b[31mred", `\x1b[31mred`},
		{"tab\there\r\x00\x7f", `tab\x09here\x0d\x00\x7f`},
		{"c1 \u009b31m", `c1 \xc2\x9b31m`},
		{"\u202eturned", `\u202eturned`},
		{"bad \xff\xc3", `bad \xff\xc3`},
		{"\ufffd is a character", "\ufffd is a character"},
	} {
		var b bytes.Buffer
		o := &output{Writer: &b}
		n, err := o.Write([]byte(c.in))
		if n != len(c.in) || err != nil || b.String() != c.want {
			t.Errorf("%q: %d, %v, %q: want %q", c.in, n, err, b.String(), c.want)
		}
	}
	if got := clean("a\nb"); got != `a\nb` {
		t.Errorf("clean: %q", got)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("\x1b]0;title\a and \xc2\x9b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		out := escape(b)
		if !utf8.Valid(out) {
			t.Fatalf("%q: not UTF-8", out)
		}
		for _, r := range string(out) {
			if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Fatalf("%q: holds %q", out, r)
			}
		}
		if printable(b) != bytes.Equal(out, b) {
			t.Fatalf("%q: printable says %v", b, printable(b))
		}
	})
}

// FuzzJSON holds that what is escaped in JSON is still the same text.
func FuzzJSON(f *testing.F) {
	f.Add("\x1b[1m \u009b \u202e \x7f plain")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		var b bytes.Buffer
		tool := &tool{stdout: &output{Writer: &b}, stderr: &b}
		tool.encode([]string{s})
		var back []string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back) != 1 || back[0] != s {
			t.Fatalf("%q: %v, %q", b.Bytes(), err, back)
		}
		if !printable(b.Bytes()) {
			t.Fatalf("%q", b.Bytes())
		}
	})
}

func TestHostileNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "\x1b[2Jx\n1 (init)")
	if out, err := exec.Command("cp", fixture(t).bin, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(path)
	in, err := cmd.StdinPipe() // it waits for a line
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := strconv.Itoa(cmd.Process.Pid)
	for _, args := range [][]string{{"info", "-p", pid}, {"info", "-p", pid, "--json"}, {"patch", "-p", pid, path}} {
		stdout, stderr, _ := fother(args...)
		if all := stdout + stderr; strings.Contains(all, "\x1b") || strings.Contains(all, "\n1 (init)") || !strings.Contains(all, "[2Jx") {
			t.Errorf("fother %q: %q", args, all)
		}
	}
}

// keys returns the sorted names of a JSON object.
func keys(o map[string]any) []string {
	var all []string
	for k := range o {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

func TestJSON(t *testing.T) {
	prog := fixture(t)
	patch := filepath.Join(t.TempDir(), string(prog.id)+".kpatch")
	write(t, patch, prog.patch(t, "default", 1))
	cmd := exec.Command(prog.bin)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := strconv.Itoa(cmd.Process.Pid)
	for _, c := range []struct {
		code int
		keys string // of the only process
		args []string
	}{
		{0, "exit pid plan", []string{"patch", "-p", pid, "--json", "--dry-run", patch}},
		{0, "exit pid result", []string{"patch", "-p", pid, "--json", filepath.Dir(patch)}},
		{3, "error exit pid", []string{"patch", "-p", pid, "--json", patch, "--dry-run"}},
		{3, "error exit pid result", []string{"patch", "-p", pid, "--json", patch}},
		{0, "applied exit name objects pid", []string{"info", "-p", pid, "--json"}},
		{0, "applied exit name objects pid", []string{"info", "-s", filepath.Dir(patch), "--json", "-b", ""}},
		{0, "exit pid result", []string{"unpatch", "-p", pid, "--json"}},
		{3, "error exit pid result", []string{"unpatch", "-p", pid, "--json"}},
		{4, "error exit pid", []string{"patch", "-p", strconv.Itoa(os.Getpid()), "--json", patch}},
		{1, "applied error exit name objects pid", []string{"info", "-p", "4194303", "--json"}},
	} {
		stdout, stderr, code := fother(c.args...)
		var all []map[string]any
		if err := json.Unmarshal([]byte(stdout), &all); err != nil || len(all) != 1 {
			t.Errorf("fother %v: %v: %s%s", c.args, err, stdout, stderr)
			continue
		}
		if got := strings.Join(keys(all[0]), " "); got != c.keys || code != c.code || all[0]["exit"] != float64(code) {
			t.Errorf("fother %v: exit %d, %v in %s: want %d, %s", c.args, code, all[0]["exit"], got, c.code, c.keys)
		}
	}
}
