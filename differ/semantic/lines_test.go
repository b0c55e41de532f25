package semantic_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/fother/fother/differ/semantic"
)

// TestForms: data that says nothing of types is refused by name, and not taken
// for data that says nothing changed.
func TestForms(t *testing.T) {
	const text = "struct s { int a; } v; struct s *p; int f(int n) { return n + v.a; }"
	for _, c := range []struct {
		command []string
		want    error
		lines   bool
	}{
		{[]string{"gcc", "-O2"}, semantic.ErrNoData, false},
		{[]string{"gcc", "-g", "-gsplit-dwarf"}, semantic.ErrForm, false},
		{[]string{"gcc", "-g", "-gdwarf-4", "-gsplit-dwarf"}, semantic.ErrForm, false},
		{[]string{"gcc", "-g", "-fdebug-types-section"}, semantic.ErrForm, false},
		{[]string{"gcc", "-gdwarf-4", "-fdebug-types-section"}, semantic.ErrForm, false},
		{[]string{"clang", "-g", "-gsplit-dwarf"}, semantic.ErrForm, false},
		{[]string{"gcc", "-g1"}, nil, true},
		{[]string{"gcc", "-g1", "-O2", "-g2"}, nil, false},
		{[]string{"gcc", "-g", "-ggdb1"}, nil, true},
		{[]string{"gcc", "-gdwarf-4", "-g3", "-gz"}, nil, false},
		{[]string{"clang", "-g1"}, nil, true},
		{[]string{"clang", "-gmlt", "-O2"}, nil, true},
		{[]string{"clang", "-g", "-gno-split-dwarf", "-fno-debug-types-section"}, nil, false},
	} {
		t.Run(c.command[0]+c.command[1]+c.command[len(c.command)-1], func(t *testing.T) {
			p, err := semantic.Open(build(t, text, c.command...))
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err == nil && slices.Equal(p.LinesOnly(), []string{"/build/unit.c"}) != c.lines {
				t.Errorf("only lines of %q: want %t", p.LinesOnly(), c.lines)
			}
		})
	}
}
