package apply

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/apply/internal/ptrace"
)

// same compares a summary with what is found when the process is opened.
func (s *Summary) same(t *testing.T) {
	t.Helper()
	p, err := Open(s.PID)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	objects := p.Objects()
	slices.SortFunc(objects, func(a, b ObjectInfo) int { return cmp.Compare(a.Base, b.Base) })
	if s.Name != p.Name || s.Headless != p.Headless() || !slices.Equal(s.Objects, objects) || !slices.Equal(s.Damaged, p.Damaged()) {
		t.Errorf("%+v\nwant %s, %+v", s, p.Name, objects)
	}
	if want := p.Applied(); !reflect.DeepEqual(s.Applied, want) {
		t.Errorf("applied: %+v, want %+v", s.Applied, want)
	}
}

// TestSummary: what a reader tells of a process whose files it knows, without that
// it opens it, is what is there; before, with and after a patch.
func TestSummary(t *testing.T) {
	r := NewReader()
	for i, flags := range [][]string{{"-fPIE", "-pie"}, {"-fPIE", "-pie"}, {"-fno-pie", "-no-pie"}, {"-fPIE", "-static-pie"}, {"-fPIE", "-pie", "-Wl,--build-id=none"}, {"-fPIE", "-pie", "-Wl,-z,noseparate-code"}} {
		bin := compile(t, "summary-"+strings.Join(flags[1:], ""), flags...)
		prog := start(t, bin)
		for round := range 3 {
			_, err := r.glance(prog.pid)
			if i == 0 && round == 0 && !errors.Is(err, errUnknownCode) || round > 0 && err != nil {
				t.Errorf("%v, round %d: %v", flags, round, err)
			}
			s, err := r.Summary(prog.pid)
			if err != nil {
				t.Fatal(err)
			}
			s.same(t)
		}
		if i > 0 {
			continue
		}
		applyTo(t, prog.pid, patchFor(t, bin, "default", 1, "answer"))
		s, err := r.glance(prog.pid)
		if err != nil || len(s.Applied) != 1 {
			t.Fatalf("patched: %+v, %v", s, err)
		}
		s.same(t)
		revertAll(t, prog.pid)
	}
	if _, err := r.Summary(1 << 22); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}

// TestSummaryIsNotFooled: what is known by its place and is another build is told as
// what it is.
func TestSummaryIsNotFooled(t *testing.T) {
	r := NewReader()
	pid := start(t, pie(t)).pid
	for range 2 {
		s, err := r.Summary(pid)
		if err != nil {
			t.Fatal(err)
		}
		s.same(t)
		if _, err := r.glance(pid); err != nil {
			t.Errorf("it is not known: %v", err)
		}
		for _, l := range r.lines { // as if the file had been another one
			if l.code != nil && l.code.id != "" {
				l.code.note[len(l.code.note)-1]++
				l.code.id = "00"
			}
		}
		if _, err := r.glance(pid); !errors.Is(err, errUnknownCode) {
			t.Errorf("another build is not noticed: %v", err)
		}
	}
}

// TestGlanceSeesLeftovers: what a tool that was killed in its calls has left makes a
// reader look more closely.
func TestGlanceSeesLeftovers(t *testing.T) {
	r := NewReader()
	pid := start(t, pie(t)).pid
	if _, err := r.Summary(pid); err != nil {
		t.Fatal(err)
	}
	g := new(glance)
	g.reset(r)
	err := g.ask(pid)
	if errors.Is(err, ptrace.ErrUntold) || errors.Is(err, errSeeMaps) && g.vdsoEnd == 0 {
		t.Logf("maps files are read here: %v", err)
		return
	}
	if err == nil {
		err = g.readNotes(pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	mem, err := ptrace.OpenMem(pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for _, b := range []byte{1, 0} {
		if err := mem.Write(g.vdsoEnd-64, []byte{b}); err != nil {
			t.Fatal(err)
		}
		g.reset(r)
		err := g.ask(pid)
		if err == nil {
			err = g.readNotes(pid)
		}
		if errors.Is(err, errSeeMaps) != (b != 0) {
			t.Errorf("with %d at the vDSO's end: %v", b, err)
		}
		s, err := r.Summary(pid)
		if err != nil {
			t.Fatal(err)
		}
		s.same(t)
	}
}

// TestGlanceLines: which lines of a maps file are taken for what.
func TestGlanceLines(t *testing.T) {
	file := &knownCode{path: "/bin/a", id: "00"}
	r := NewReader()
	r.lines["r--p 00000000 fe:00 7/bin/a"] = codeLine{head: file}
	r.lines["r-xp 00001000 fe:00 7/bin/a"] = codeLine{code: file, distance: 0x1000}
	r.lines["r-xp 00003000 fe:00 7/bin/a"] = codeLine{part: true}
	const head, code = "1000-2000 r--p 00000000 fe:00 7    /bin/a\n", "2000-3000 r-xp 00001000 fe:00 7     /bin/a\n"
	for _, c := range []struct {
		name, text    string
		objects, bare int
		err           string
	}{
		{"an object", head + code, 1, 0, ""},
		{"with two parts, data, a heap and a stack", head + code + "4000-5000 r-xp 00003000 fe:00 7 /bin/a\n5000-6000 rw-p 00004000 fe:00 7 /bin/a\n6000-7000 rw-p 00000000 00:00 0 [heap]\n8000-9000 rw-p 00000000 00:00 0 \n", 1, 0, ""},
		{"twice", head + code + "11000-12000 r--p 00000000 fe:00 7 /bin/a\n12000-13000 r-xp 00001000 fe:00 7 /bin/a\n", 2, 0, ""},
		{"memory that may hold a record", "1000-2000 r--p 00000000 00:00 0 \n3000-4000 r--p 00000000 00:00 0   [anon:a/b]\n4000-5000 r--p 00000000 00:00 0 [vvar]\n", 0, 2, ""},
		{"code that is made while it runs", "1000-2000 rwxp 00000000 00:00 0 \nffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n", 0, 0, ""},
		{"data", "1000-2000 r--p 00000000 fe:00 8 /usr/lib/locale\n", 0, 0, ""},
		{"code without its head", code, 0, 0, "not known"},
		{"code elsewhere than its head says", "0-1000 r--p 00000000 fe:00 7 /bin/a\n" + code, 0, 0, "not known"},
		{"another file's head", "1000-2000 r--p 00000000 fe:00 8 /bin/a\n" + code, 0, 0, "not known"},
		{"code that may be written", head + "2000-3000 rwxp 00001000 fe:00 7 /bin/a\n", 0, 0, "not known"},
		{"another file", "1000-2000 r-xp 00000000 fe:00 9 /bin/b\n", 0, 0, "not known"},
		{"a file without a path", "1000-2000 r-xp 00000000 fe:00 9 \n", 0, 0, "not known"},
		{"no line", "1000\n", 0, 0, "not a mapping"},
		{"a short one", "1000-2000 r-x\n", 0, 0, "not a mapping"},
		{"an empty one", "\n", 0, 0, "not a mapping"},
		{"no number", "zz-2000 r-xp 00001000 fe:00 7 /bin/a\n", 0, 0, "not known"},
		{"anonymous, and nonsense", "1000-zz r--p 00000000 00:00 0 \n", 0, 0, "number"},
	} {
		g := new(glance)
		g.reset(r)
		err := wholeLines(strings.NewReader(c.text), g.lines)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && (len(g.objects) != c.objects || len(g.bare) != c.bare) {
			t.Errorf("%s: %d objects, %d mappings for records", c.name, len(g.objects), len(g.bare))
		}
	}
}

// FuzzGlance: whatever a maps file says, what is found in it is no more than a parse of
// all of it finds.
func FuzzGlance(f *testing.F) {
	f.Add([]byte("1000-2000 r--p 00000000 fe:00 7    /bin/a\n2000-3000 r-xp 00001000 fe:00 7     /bin/a\n3000-4000 r--p 00000000 00:00 0 \n"))
	f.Add([]byte("0-0 r--p 0 0 00"))
	f.Add([]byte("7ffd1000-7ffd2000 r-xp 00000000 00:00 0                          [vdso]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		maps, err := parseMaps(bytes.NewReader(text))
		r := NewReader()
		for i := range maps {
			m, k := &maps[i], &knownCode{path: maps[i].Path}
			r.lines[m.key()] = codeLine{head: k, code: k}
		}
		g := new(glance)
		g.reset(r)
		if e := wholeLines(bytes.NewReader(text), g.lines); e != nil || err != nil {
			return
		}
		records := 0
		for i := range maps {
			if maps[i].mayRecord() {
				records++
			}
		}
		if len(g.bare) != records {
			t.Errorf("%d mappings for records, want %d", len(g.bare), records)
		}
		for _, o := range g.objects {
			if !slices.ContainsFunc(maps, func(m Mapping) bool { return m.Range.Lo == o.base && m.executable() && m.Path == o.file.path }) {
				t.Errorf("no code is at %v", o.base)
			}
		}
	})
}

// BenchmarkSummary tells of a process again and again, beside bare reads of its maps
// file.
func BenchmarkSummary(b *testing.B) {
	pid := start(b, compile(b, "pie", "-fPIE", "-pie")).pid
	r := NewReader()
	for name, f := range map[string]func() error{
		"summary": func() error { _, err := r.Summary(pid); return err },
		"open":    func() error { p, err := r.Open(pid); p.Close(); return err },
		"maps":    func() error { _, err := ptrace.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
