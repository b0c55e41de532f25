package semantic_test

import (
	"strings"
	"testing"

	"github.com/fother/fother/differ/semantic"
)

const variablesC = `
struct inner { int a, b; };
enum mode { idle, busy };
struct node { struct node *next; struct inner in; enum mode mode; };
static struct node *head;
static long long total;
int shared[4];
__attribute__((noinline)) int f(int x) { static int count; static int other = 3; count += x; other ^= x; total += count; return count + other; }
__attribute__((noinline)) int g(int x) { static int count; count -= x; shared[x & 3]++; return count; }
int h(struct node *n) { n->next = head; head = n; return f(1) + g(2) + (int)total; }
`

// storageOf returns what is told of the variables of a text whose symbols begin
// with, or for clang end in, a name.
func storageOf(t *testing.T, text string, command ...string) map[string]semantic.Storage {
	t.Helper()
	f := build(t, text, command...)
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range syms {
		names = append(names, s.Name)
	}
	p, err := semantic.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.Variables("/build/unit.c", names)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]semantic.Storage{}
	for symbol, v := range all {
		parts := strings.Split(symbol, ".")
		name := parts[0]
		if v.Scope != "" && parts[0] == v.Scope { // clang
			name = parts[1]
		}
		byName[strings.Trim(v.Scope+"."+name, ".")] = v
	}
	return byName
}

// TestVariables: variables are told by their place, with scope and type, whatever
// number is in their symbols.
func TestVariables(t *testing.T) {
	for _, command := range sample([][]string{{"gcc", "-g", "-O1"}, {"gcc", "-g", "-O2", "-gdwarf-4"}, {"clang", "-g", "-O1"}, {"clang", "-g", "-gdwarf-4"}}) {
		t.Run(strings.Join(command, " "), func(t *testing.T) {
			was := storageOf(t, variablesC, command...)
			for name, want := range map[string]string{"head": "struct node *", "total": "long long int", "shared": "int[4]", "f.count": "int", "g.count": "int", "f.other": "int"} {
				if command[0] == "clang" {
					want = strings.Replace(want, "long long int", "long long", 1)
				}
				if v, ok := was[name]; !ok || v.Type != want {
					t.Errorf("%s: %+v, %v: want type %s", name, v, ok, want)
				}
			}
			for change, c := range map[string]struct{ old, new, changed string }{
				"the same":            {"", "", ""},
				"moved lines":         {"struct inner {", "\n\nstruct inner {", ""},
				"what is contained":   {"int a, b;", "int a, b, c;", "head"},
				"members swapped":     {"int a, b;", "int b, a;", "head"},
				"an enumerator":       {"idle, busy", "none, idle, busy", "head"},
				"another type":        {"long long total", "unsigned long long total", "total"},
				"another array":       {"shared[4]", "shared[8]", "shared"},
				"a typedef is a name": {"static long long total", "typedef long long sum; static sum total", ""},
			} {
				now := storageOf(t, strings.Replace(variablesC, c.old, c.new, 1), command...)
				for name, v := range now {
					if (v.Layout != was[name].Layout) != (name == c.changed) {
						t.Errorf("%s: of %s: %+v, was %+v", change, name, v, was[name])
					}
				}
				if len(now) != len(was) {
					t.Errorf("%s: %d variables, were %d", change, len(now), len(was))
				}
			}
		})
	}
}
