package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

func TestGetopt(t *testing.T) {
	for _, c := range []struct {
		spec, args string
		options    []option
		rest, err  string
	}{
		{"hp:", "-p 12 x -h y", []option{{'p', "12"}, {'h', ""}}, "x y", ""},
		{"hp:", "-hp12 x", []option{{'h', ""}, {'p', "12"}}, "x", ""},
		{"hp:", "x -- -p 12", nil, "x -p 12", ""},
		{"+v", "-v info -v", []option{{'v', ""}}, "info -v", ""},
		{"hp:", "- -p", nil, "", "-p wants a value"},
		{"hp:", "-:", nil, "", "-: is not known"},
		{"hp:", "--help", nil, "", "-- is not known"},
	} {
		options, rest, err := getopt(strings.Fields(c.args), c.spec)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v: want %s", c.args, err, c.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(options, c.options) || strings.Join(rest, " ") != c.rest {
			t.Errorf("%s: %v, %v, %v", c.args, options, rest, err)
		}
	}
}

func FuzzGetopt(f *testing.F) {
	f.Add("-v patch -p12 x", "+vp:")
	f.Fuzz(func(t *testing.T, args, spec string) {
		in := strings.Fields(args)
		options, rest, err := getopt(in, spec)
		if err == nil && len(options)+len(rest) > len(args) {
			t.Fatalf("%q: %v, %q", in, options, rest)
		}
	})
}

func TestTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.kpatch")
	for _, c := range []struct{ head, want string }{
		{elfMagic, "want at most"},
		{"\x28\xb5\x2f\xfd", "want at most"},
		{"none", "not a .kpatch file"}, // and is not read to find that out
	} {
		write(t, path, []byte(c.head))
		if err := os.Truncate(path, 4<<30); err != nil {
			testenv.Skip(t, err.Error()) // a file system without holes
		}
		_, err := openStore([]string{path})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v: want %s", c.head, err, c.want)
		}
	}
}

func TestFolderNames(t *testing.T) {
	dir := t.TempDir()
	const id = "00112233445566778899aabbccddeeff00112233"
	for _, name := range []string{
		id + ".kpatch", strings.ToUpper("a"+id[:39]) + ".kpatch", "cafe.kpatch", "x.kpatch", "x-1.kpatch.tar.zst",
		".x.kpatch", "x.kpatch~", "before", "README", id + "/latest", "abcd/latest", "abc/latest",
	} {
		write(t, filepath.Join(dir, name), nil)
	}
	f, err := openFolder(dir, newTrust())
	if err != nil {
		t.Fatal(err)
	}
	if len(f.files) != 1 || !f.files[id] || len(f.levels) != 2 || !f.levels[id] || !f.levels["abcd"] ||
		strings.Join(f.others, " ") != "A00112233445566778899AABBCCDDEEFF0011223.kpatch cafe.kpatch x-1.kpatch.tar.zst x.kpatch" || len(f.scripts) != 1 {
		t.Errorf("%+v", f)
	}
}

// TestKept holds that patches that were not kept in memory are read again.
func TestKept(t *testing.T) {
	prog := fixture(t)
	dir := t.TempDir()
	data := prog.patch(t, "default", 1)
	var ids []specs.BuildID
	for i := range mostTold + 3 {
		ids = append(ids, specs.BuildID(fmt.Sprintf("%010x", i+1)))
	}
	for i, id := range ids {
		write(t, filepath.Join(dir, fmt.Sprintf("patch-%d.kpatch", i)), foreign(t, data, id))
	}
	s := &store{trust: newTrust(), known: make(map[specs.BuildID][]*offer), found: make(map[specs.BuildID]found), kept: maxKept}
	for i := range ids {
		if err := s.load(filepath.Join(dir, fmt.Sprintf("patch-%d.kpatch", i)), false); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.given()) != mostTold {
		t.Errorf("%d patches are kept", len(s.given()))
	}
	for _, id := range ids {
		offers, err := s.lookup(id)
		if err != nil || len(offers) != 1 || offers[0].patch == nil || offers[0].patch.Target.BuildID != id {
			t.Errorf("%s: %v, %v", id, offers, err)
		}
	}
}

// sleepers starts n processes.
func sleepers(b *testing.B, n int) {
	for range n {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
}

func BenchmarkInfoAll300(b *testing.B) {
	sleepers(b, 300)
	for b.Loop() {
		if code := run(b.Context(), []string{"info", "-p", "all"}, nil, io.Discard, io.Discard); code != 0 {
			b.Fatal(code)
		}
	}
}

// BenchmarkPatchAllFolder is fother patch -p all of a folder of 10,000
// patches, none of which fits any of 300 processes.
func BenchmarkPatchAllFolder(b *testing.B) {
	sleepers(b, 300)
	dir := b.TempDir()
	for i := range 10000 {
		write(b, filepath.Join(dir, fmt.Sprintf("%040x.kpatch", i+1)), nil)
	}
	b.ResetTimer()
	for b.Loop() {
		if code := run(b.Context(), []string{"patch", "-p", "all", dir}, nil, io.Discard, io.Discard); code != exitNothing {
			b.Fatal(code)
		}
	}
}

// BenchmarkFolder100k reads the names of a folder of 100,000 patches and looks
// for one.
func BenchmarkFolder100k(b *testing.B) {
	dir := b.TempDir()
	for i := range 100000 {
		write(b, filepath.Join(dir, fmt.Sprintf("%040x.kpatch", i+1)), nil)
	}
	b.ResetTimer()
	for b.Loop() {
		s, err := openStore([]string{dir})
		if err != nil {
			b.Fatal(err)
		}
		if offers, err := s.lookup("ff"); err != nil || len(offers) > 0 {
			b.Fatal(offers, err)
		}
	}
}

// BenchmarkPatchUnpatch is both commands on one process, without the start of
// the program.
func BenchmarkPatchUnpatch(b *testing.B) {
	prog := fixture(b)
	patch := filepath.Join(b.TempDir(), "fix.kpatch")
	write(b, patch, prog.patch(b, "default", 1))
	cmd := exec.Command(prog.bin)
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	pid := fmt.Sprint(cmd.Process.Pid)
	for b.Loop() {
		for _, args := range [][]string{{"patch", "-p", pid, patch}, {"unpatch", "-p", pid}} {
			if code := run(b.Context(), args, nil, io.Discard, io.Discard); code != 0 {
				b.Fatal(code)
			}
		}
	}
}
