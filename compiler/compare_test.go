package compiler

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// twoBuilds captures the tree twice at one path: as it is, and with files
// replaced by those in patch.
func twoBuilds(t *testing.T, files, patch map[string]string, commands ...string) (original, patched *Capture) {
	t.Helper()
	dir, store := t.TempDir(), t.TempDir()
	tree(t, dir, files)
	original = capture(t, dir, store, specs.StageOriginal, nil, commands...)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	tree(t, dir, files)
	tree(t, dir, patch)
	return original, capture(t, dir, store, specs.StagePatched, nil, commands...)
}

// changes returns for each pair that differs its base name and the sources of
// its units that differ.
func changes(pairs []Pair) string {
	var out []string
	for _, p := range pairs {
		if !p.Changed() {
			continue
		}
		s := filepath.Base(p.Original.Output) + ":"
		for _, u := range p.Units {
			if !u.Same() {
				s += " " + nameOf(u.Original) + ">" + nameOf(u.Patched)
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func nameOf(u *Unit) string {
	if u == nil {
		return ""
	}
	return filepath.Base(u.Source)
}

func TestCompare(t *testing.T) {
	testenv.Needs(t, "gcc", "g++", "make", "objcopy", "strip")
	tests := map[string]struct {
		patch    map[string]string
		commands []string
		want     string
	}{
		"archive member": {
			map[string]string{"used.c": "static int count;\nint used(int n) { return count -= n; }\n"},
			[]string{"make -j4"}, "prog: used.c>used.c",
		},
		"shared": {
			map[string]string{"shared.c": "int shared(int n) { return n; }\n"},
			[]string{"make -j4 CFLAGS=-O2"}, "libshared.so: shared.c>shared.c",
		},
		"one step": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"make -j4 CFLAGS=-pipe"}, "one: two.c>two.c",
		},
		"link-time optimization": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"make -j4 CFLAGS='-O2 -flto'"}, "one: <artificial>><artificial>",
		},
		"only comments": {
			map[string]string{"two.c": "int helper(int n) { return n - 1; /* 1 */ }\n"},
			[]string{"make -j4"}, "",
		},
		"new unit": {
			map[string]string{"two.c": "int more(int);\nint helper(int n) { return more(n - 1); }\n", "three.c": "int more(int n) { return n; }\n"},
			[]string{"gcc -o one one.c two.c $(ls three.c 2>/dev/null || true)"}, "one: two.c>two.c >three.c",
		},
		"partial link": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"gcc -c one.c two.c", "gcc -r -nostdlib -o both.o two.o", "ld -r -o all.o one.o both.o", "gcc -o one all.o"}, "one: two.c>two.c",
		},
		"stripped objects": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{
				"gcc -g -c one.c two.c", "strip --strip-unneeded one.o", "objcopy --add-section .extra=Makefile two.o new.o",
				"ar rc lib.a new.o", "gcc -o one one.o lib.a",
			}, "one: two.c>two.c",
		},
		"user's map": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"gcc -c one.c two.c && ar rc lib.a two.o && gcc -o one one.o lib.a -Wl,-Map,my.map && grep -q helper my.map"}, "one: two.c>two.c",
		},
		"printed map": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"gcc -o one one.c two.c -Wl,-M >printed && grep -q helper printed"}, "one: two.c>two.c",
		},
		"response file": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"echo '-o one \"one.c\" two.c -s' > args && gcc @args"}, "one: two.c>two.c",
		},
		"linked and moved": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"gcc -o one.tmp one.c two.c && mv one.tmp one"}, "one: two.c>two.c",
		},
		"stripped afterwards": {
			map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"},
			[]string{"gcc -o one one.c two.c && strip one"}, "one: two.c>two.c",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			original, patched := twoBuilds(t, project, tt.patch, tt.commands...)
			pairs, err := Compare(original, patched)
			if err != nil {
				t.Fatal(err)
			}
			if got := changes(pairs); got != tt.want {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
		})
	}
}

// TestCompareRefuses has builds of which capture cannot tell the whole
// difference.
func TestCompareRefuses(t *testing.T) {
	testenv.Needs(t, "gcc", "make")
	patch := map[string]string{"two.c": "int helper(int n) { return n - 2; }\n"}
	tests := map[string]struct {
		commands []string
		want     string
		class    error
	}{
		"assembler of its own": {
			[]string{"gcc -c one.c && gcc -B/usr/bin -c two.c && gcc -o one one.o two.o"},
			"two.o differs, and was made by a tool that capture did not see", ErrUnseen,
		},
		"assembler of its own, archive": {
			[]string{"gcc -c one.c && gcc -B/usr/bin -c two.c && ar rc lib.a two.o && gcc -o one one.o lib.a"},
			"lib.a(two.o) differs, and was made by a tool that capture did not see", ErrUnseen,
		},
		"linker of its own": {
			[]string{"make plus", "gcc -B/usr/bin -o one one.c two.c"},
			"one: linked file differs, and was made by a tool that capture did not see", ErrUnseen,
		},
		"no build-id": {[]string{"make plus", "gcc -o one one.c two.c -Wl,--build-id=none"}, "one: no build-id", ErrNoBuildID},
		"included data": {
			[]string{"cp two.c data.bin", "gcc -o one one.c asm.S"}, "its included file", ErrIncomplete,
		},
	}
	files := map[string]string{"asm.S": ".globl helper\nhelper: .incbin \"data.bin\"\n.section .note.GNU-stack\n"}
	for name, text := range project {
		files[name] = text
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			original, patched := twoBuilds(t, files, patch, tt.commands...)
			_, err := Compare(original, patched)
			var advice *HintError
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.class) || !errors.As(err, &advice) || advice.Hint() == "" {
				t.Errorf("error %v, want %q with a hint", err, tt.want)
			}
		})
	}
	t.Run("options of the link", func(t *testing.T) {
		original, patched := twoBuilds(t, files, map[string]string{"options": "-Wl,-z,now,-z,separate-code,--defsym,other=helper"},
			"gcc -o one one.c two.c $(cat options 2>/dev/null)")
		if _, err := Compare(original, patched); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "no unit that went into it does") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("new program", func(t *testing.T) {
		original, patched := twoBuilds(t, files, map[string]string{"three.c": "int main(void) { return 0; }\n"},
			"gcc -o one one.c two.c", "! test -f three.c || gcc -o three three.c")
		pairs, err := Compare(original, patched)
		if added := Added(original, patched); err != nil || len(pairs) != 1 || len(added) != 1 || filepath.Base(added[0]) != "three" {
			t.Errorf("pairs %q, added %q, error %v", changes(pairs), added, err)
		}
		if added := Added(patched, original); len(added) != 0 {
			t.Errorf("added %q the other way round", added)
		}
	})
	t.Run("targets", func(t *testing.T) {
		original, patched := twoBuilds(t, files, patch, "make plus one")
		if pairs, err := Compare(original, patched, deliverable(t, original, "plus").Output); err != nil || len(pairs) != 1 {
			t.Errorf("%d pairs, error %v", len(pairs), err)
		}
		link := deliverable(t, original, "plus").Output + ".so.1"
		if err := os.Symlink("plus", link); err != nil {
			t.Fatal(err)
		}
		if pairs, err := Compare(original, patched, link); err != nil || len(pairs) != 1 {
			t.Errorf("%d pairs by a symbolic link, error %v", len(pairs), err)
		}
		if _, err := Compare(original, patched, "/no/such"); !errors.Is(err, ErrNoTarget) {
			t.Errorf("error %v for a target that is not built", err)
		}
	})
}

// TestUnseenButEqual: what capture did not see and is the same is reported
// and allowed.
func TestUnseenButEqual(t *testing.T) {
	testenv.Needs(t, "gcc")
	original, patched := twoBuilds(t, project, map[string]string{"one.c": "int helper(int);\nint main(void) { return helper(3); }\n"},
		"gcc -c one.c && gcc -B/usr/bin -c two.c && gcc -o one one.o two.o")
	pairs, err := Compare(original, patched)
	if err != nil {
		t.Fatal(err)
	}
	if got := changes(pairs); got != "one: one.c>one.c" {
		t.Errorf("changes %q", got)
	}
	if got := strings.Join(pairs[0].Unseen, " "); !strings.Contains(got, "/two.o") {
		t.Errorf("unseen are %q, want two.o among them", got)
	}
}
