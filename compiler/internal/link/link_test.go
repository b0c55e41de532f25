package link

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

func TestSplitArgs(t *testing.T) {
	tests := map[string][]string{
		"":                          nil,
		" a  b\n\tc ":               {"a", "b", "c"},
		`'a b' "c d" e" "f ""`:      {"a b", "c d", "e f", ""},
		`a\ b "c\"d" 'e\'f' g\\`:    {"a b", `c"d`, "e'f", `g\`},
		`-Wl,-rpath,'$ORIGIN' "x'y`: {"-Wl,-rpath,$ORIGIN", "x'y"},
	}
	for in, want := range tests {
		if got := SplitArgs(in); !slices.Equal(got, want) {
			t.Errorf("SplitArgs(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestExpand(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"one": "a @two 'b c'", "two": "x\ny", "self": "@self"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Expand(dir, []string{"-o", "@one", "@none", "@"})
	if want := []string{"-o", "a", "x", "y", "b c", "@none", "@"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("Expand = %q, %v, want %q", got, err, want)
	}
	if _, err := Expand(dir, []string{"@self"}); err == nil {
		t.Error("a file that names itself is expanded")
	}
}

func TestParseArgs(t *testing.T) {
	tests := []struct {
		args string
		want Args
	}{
		{"-o x a.o", Args{Output: "x"}},
		{"-ox --strip-all -shared", Args{Output: "x", Strips: true, Shared: true}},
		{"--output=x -s -L s -Map m.map", Args{Output: "x", Strips: true, Map: "m.map"}},
		{"-z now -soname -s -o x -h -x", Args{Output: "x"}},
		{"-Map=m.map -e -o", Args{Output: "a.out", Map: "m.map"}},
		{"-o x -Map=-", Args{Output: "x", PrintMap: true}},
		{"-o x -Map=%.map -M", Args{Output: "x", Map: "x.map", PrintMap: true}},
		{"--version", Args{Output: "a.out", Query: true}},
		{"-plugin-opt -s -plugin-opt=-fresolution=x.res", Args{Output: "a.out"}},
	}
	for _, tt := range tests {
		got, err := ParseArgs("/nowhere", strings.Fields(tt.args))
		if err != nil {
			t.Fatal(err)
		}
		got.All = nil
		if got.Output != tt.want.Output || got.Map != tt.want.Map || got.PrintMap != tt.want.PrintMap ||
			got.Strips != tt.want.Strips || got.Shared != tt.want.Shared || got.Query != tt.want.Query {
			t.Errorf("%s: %+v, want %+v", tt.args, *got, tt.want)
		}
	}
}

func TestUnstripped(t *testing.T) {
	a, err := ParseArgs("/nowhere", strings.Fields("-plugin p.so -o x -s -Map m --dependency-file=d -soname -s a.o -M -lc"))
	if err != nil {
		t.Fatal(err)
	}
	want := "-plugin p.so -soname -s a.o -lc -o y -Map=n"
	if got := strings.Join(a.Unstripped("y", "n"), " "); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

const bfdMap = `Archive member included to satisfy reference by file (symbol)

./libx.a(b.o)                 m.o (g)
a/very/long/name/of/an/archive.a(member of it.o)
                              m.o (h)

As-needed library included to satisfy reference by file (symbol)

libc.so.6                     m.o (puts)

Discarded input sections

 .note.GNU-stack
                0x0000000000000000        0x0 /usr/lib/Scrt1.o
LOAD /usr/lib/Scrt1.o
LOAD m.o
LOAD ./libx.a
 .text          0x0000000000001139       0x1b with space.o
                0x0000000000001139                main
 .text          0x0000000000001154       0x20 ./libx.a(b.o)
 *fill*         0x0000000000001174        0xc 
                0x0000000000000318                . = (SEGMENT_START ("text-segment", 0x0) + SIZEOF_HEADERS)
`

const moldMap = `               VMA       Size Align Out     In      Symbol
                 0         64     8 EHDR
             0x2a8         28     1 .interp
            0x1660         25    16 .text
            0x1660         15     1         /tmp/m.o:(.text)
            0x1660          0     0                 main
            0x1679         10     1         libx.a(b.o):(.text)
`

const lldMap = `             VMA              LMA     Size Align Out     In      Symbol
          201120           201120       1f    16 .text
          201120           201120       1f    16         /tmp/m.o:(.text)
          201120           201120       1f     1                 main
          201140           201140       1f    16         libx.a(b.o):(.text.f(int))
`

func TestParseMap(t *testing.T) {
	tests := []struct {
		name, text string
		want       []MapInput
	}{
		{"bfd", bfdMap, []MapInput{
			{"./libx.a", ""}, {"./libx.a", "b.o"},
			{"a/very/long/name/of/an/archive.a", ""}, {"a/very/long/name/of/an/archive.a", "member of it.o"},
			{"/usr/lib/Scrt1.o", ""}, {"m.o", ""}, {"with space.o", ""},
		}},
		{"mold", moldMap, []MapInput{{"/tmp/m.o", ""}, {"libx.a", ""}, {"libx.a", "b.o"}}},
		{"lld", lldMap, []MapInput{{"/tmp/m.o", ""}, {"libx.a", ""}, {"libx.a", "b.o"}}},
	}
	for _, tt := range tests {
		got, err := ParseMap(strings.NewReader(tt.text))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestArchive(t *testing.T) {
	testenv.Needs(t, "ar")
	dir := t.TempDir()
	files := map[string]string{"short": "odd", "a-name-longer-than-sixteen-bytes.o": "even", "unused": "x"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []string{"rc", "rcT"} {
		path := filepath.Join(dir, "lib"+mode+".a")
		cmd := exec.Command("ar", mode, path, "short", "a-name-longer-than-sixteen-bytes.o", "unused")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := map[string]string{}
		err := Archive(path, func(name string) bool { return name != "unused" }, func(name string, r io.ReadSeeker) error {
			data, err := io.ReadAll(r)
			got[name] = string(data)
			return err
		})
		if err != nil || len(got) != 2 || got["short"] != "odd" || got["a-name-longer-than-sixteen-bytes.o"] != "even" {
			t.Errorf("%s: %q, %v", mode, got, err)
		}
	}
	if err := Archive(filepath.Join(dir, "short"), nil, nil); !errors.Is(err, ErrNotArchive) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseMap(f *testing.F) {
	f.Add([]byte(bfdMap))
	f.Add([]byte(lldMap))
	f.Add([]byte(moldMap))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ParseMap(bytes.NewReader(data))
		if err != nil {
			return
		}
		seen := map[MapInput]bool{}
		for _, in := range got {
			if in.Path == "" || seen[in] {
				t.Errorf("%v is empty or there twice", in)
			}
			seen[in] = true
		}
	})
}

func FuzzSplitArgs(f *testing.F) {
	f.Add(`'a b' "c d" e" "f "" \`)
	f.Fuzz(func(t *testing.T, s string) {
		// What is quoted again comes back.
		args := SplitArgs(s)
		var b strings.Builder
		for _, a := range args {
			b.WriteString(" '" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(a) + "'")
		}
		if again := SplitArgs(b.String()); !slices.Equal(again, args) {
			t.Errorf("%q is read as %q and then as %q", s, args, again)
		}
	})
}

func FuzzArchive(f *testing.F) {
	f.Add([]byte("!<arch>\n//                                              6         `\nab.o/\n" +
		"/0              0           0     0     100644  3         `\nabc\n"))
	f.Add([]byte("!<thin>\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := archive{
			r: bytes.NewReader(data), size: int64(len(data)), dir: "/nowhere",
			want: func(string) bool { return true },
			each: func(_ string, r io.ReadSeeker) error { _, err := io.Copy(io.Discard, r); return err },
		}
		_ = a.read() // it must end, and not panic
	})
}
