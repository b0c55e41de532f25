package verify

import (
	"slices"
	"strings"
	"testing"
)

// TestCallers: nested functions are the same whatever their numbers are if the
// same functions use them, and one that took the place of another is found.
func TestCallers(t *testing.T) {
	for _, flavour := range []string{"gcc -O0", "gcc -O2", "gcc -O2 -no-pie -fno-pie", "gcc -Os -fPIC -shared"} {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			base := build(t, flavour, "testdata/nested.c")
			for _, c := range []struct{ plant, want string }{
				{"PLANT=1", ""},
				{"PLANT=2", "fa"},
				{"PLANT=3", "fb's helper"},
				{"PLANT=4", "fa's helper, fb's helper"},
				{"PLANT=5", "fa, fb"},
				{"PLANT=6", "fa's n, fb's n"},
			} {
				names, r := differing(t, base, build(t, flavour, "testdata/nested.c", c.plant))
				for i, name := range names {
					names[i] = owned(r, name)
				}
				slices.Sort(names)
				if got := strings.Join(names, ", "); got != c.want {
					t.Errorf("%s: %s differ, want %s", c.plant, got, c.want)
					explain(t, r)
				}
			}
		})
	}
}

// owned tells what has a number in its name by the function that it is in, which
// leads to it in the patched build.
func owned(r *Report, name string) string {
	plain, numbered := family(name)
	if !numbered {
		return name
	}
	plain = strings.TrimSuffix(plain, ".#")
	leads := r.c.right.leads()
	for _, list := range [][]*entity{r.c.right.funcs, r.c.right.objs} {
		for _, e := range list {
			if e.name() != name {
				continue
			}
			if e.fn {
				return leads[e][0].name() + "'s " + plain
			}
			return leads[e.usersOf()[0]][0].name() + "'s " + plain
		}
	}
	return name
}

// TestExpressions: an operand that is a distance of the program's own is the same
// wherever it leads, unless it has no name or another value.
func TestExpressions(t *testing.T) {
	base := build(t, "gcc -O2", "testdata/numbers.S")
	for plant, want := range map[string][]string{"PLANT=1": {"changes"}, "PLANT=2": {"asks", "changes"}, "PLANT=3": {"asks", "changes"}} {
		names, r := differing(t, base, build(t, "gcc -O2", "testdata/numbers.S", plant))
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q differ, want %q", plant, names, want)
			explain(t, r)
		}
	}
}
