package semantic_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/differ/semantic"
	"github.com/fother/fother/kpack/elfobj"
)

// TestClasses: C++ names types by their scopes and template arguments; bases,
// fields and virtual tables lie in objects, members that are static do not.
func TestClasses(t *testing.T) {
	const text = `
namespace net {
	struct base { int id; virtual ~base(); };
	template <class T> class box { T value; int n; public: T get() { return value; } static int all; };
	class conn : public base { box<int> in; int &ref; public: conn(int &r) : ref(r) {} int take(int n) { return in.get() + n + ref; } enum class state { open, shut } s; };
}
net::base::~base() {}
template <class T> int net::box<T>::all;
namespace { struct hidden { long a; } state; }
int use(net::conn &c, int n) { struct local { int x; } l = {n}; return c.take(l.x) + (int)state.a + net::box<int>::all; }
`
	for name, c := range map[string]struct {
		replace []string
		want    []string
	}{
		"field of a template":  {[]string{"T value; int n;", "T value; int n, m;"}, []string{"class net::box<int>", "field m: new, at offset 8", "class net::conn"}},
		"base":                 {[]string{"int id;", "int id, more;"}, []string{"struct net::base", "field more: new, at offset 12"}},
		"base added":           {[]string{"class conn : public base", "struct extra { int e; }; class conn : public base, extra"}, []string{"class net::conn", "base struct extra: new, at offset 12"}},
		"scoped enumeration":   {[]string{"{ open, shut }", "{ shut, open }"}, []string{"enum net::conn::state", "enumerator open: 0 became 1"}},
		"anonymous namespace":  {[]string{"long a;", "long a, b;"}, []string{"struct (anonymous)::hidden", "used by variables (anonymous)::state"}},
		"result of a function": {[]string{"int use(net", "long use(net"}, []string{"function use", "became long"}},
		"type of a function":   {[]string{"struct local { int x; }", "struct local { int x, y; }"}, []string{"struct local in use", "field y: new, at offset 4, size 4 became 8 bytes; used by functions use"}},
		"static member":        {[]string{"static int all;", "static long all;", "int net::box<T>::all", "long net::box<T>::all"}, []string{"variable", "all", "type int became long"}},
		"nothing in memory":    {[]string{"int take(int n) { return", "int more() { return 1; } int take(int n) { return 1 +"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, sample(compilersCXX), func(t *testing.T, command []string) {
				got := texts(compare(t, text, strings.NewReplacer(c.replace...).Replace(text), nil, command...))
				if len(got) != min(len(c.want), 1) {
					t.Fatalf("changes:\n%s\nwant %d", strings.Join(got, "\n"), min(len(c.want), 1))
				}
				for _, want := range c.want {
					if !strings.Contains(got[0], want) {
						t.Errorf("got %s\nwant %s in it", got[0], want)
					}
				}
			})
		})
	}
}

// TestHarmless: a type is harmless if its objects cannot outlive calls of
// functions that are replaced, and clang's debug data proves it.
func TestHarmless(t *testing.T) {
	const decl = "struct tmp { int a[2]; };\n"
	const use = "int f(int n) { struct tmp t = {{n, n + 1}}; keep(t.a); return t.a[1]; }\n"
	for name, c := range map[string]struct {
		more, inline string
		outside      []string
		want         bool
	}{
		"local":              {"", "", nil, true},
		"in an array":        {"int g(int n) { struct tmp t[3] = {{{n}}}; keep(t[n].a); return t[1].a[0]; }\n", "", nil, true},
		"in another local":   {"struct outer { struct tmp t; }; int g(int n) { struct outer o = {{{n}}}; keep(o.t.a); return o.t.a[0]; }\n", "", nil, true},
		"inlined":            {"", "int h(int n) { return f(n) + f(2); }\n", nil, true},
		"outside":            {"", "", []string{"f"}, false},
		"inlined outside":    {"", "int h(int n) { return f(n) + f(2); }\n", []string{"h"}, false},
		"variable":           {"struct tmp kept;\n", "", nil, false},
		"static of function": {"int g(int n) { static struct tmp t; t.a[0] += n; keep(t.a); return t.a[1]; }\n", "", nil, false},
		"pointer":            {"int g(struct tmp *p) { return p->a[1]; }\n", "", nil, false},
		"field elsewhere":    {"struct outer { struct tmp t; } *all; int g(void) { return all->t.a[1]; }\n", "", nil, false},
		"cast":               {"int g(void *p) { return ((struct tmp *)p)->a[1]; }\n", "", nil, false},
		"by value":           {"int g(struct tmp t) { return t.a[1]; }\n", "", nil, false},
		"result":             {"struct tmp g(int n) { struct tmp t = {{n}}; return t; }\n", "", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			text := "extern void keep(int *);\n" + decl + c.more + use + c.inline
			for _, cc := range []string{"clang", "gcc"} {
				r := compare(t, text, strings.Replace(text, "int a[2]", "int a[4]", 1), c.outside, cc, "-g", "-O2")
				i := slices.IndexFunc(r.Changes, func(ch semantic.Change) bool { return ch.Name == "struct tmp" })
				if i < 0 || r.Changes[i].Harmless != (c.want && cc == "clang") {
					t.Errorf("%s: changes %+v, want harmless %t", cc, r.Changes, c.want && cc == "clang")
				}
			}
		})
	}
}

// program is a linked file for the benchmark and the fuzz target.
func program(t testing.TB, name string) *elfobj.File {
	t.Helper()
	if path := os.Getenv(name); path != "" {
		f, err := elfobj.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	return build(t, unit("struct conn { int a; };", useConn), "gcc", "-g", "-O2")
}

// BenchmarkCompare compares all units of the programs that the environment names
// in SEMANTIC_ORIGINAL and SEMANTIC_PATCHED, or of a small one with itself.
func BenchmarkCompare(b *testing.B) {
	original, patched := program(b, "SEMANTIC_ORIGINAL"), program(b, "SEMANTIC_PATCHED")
	b.SetBytes(int64(original.Size() + patched.Size()))
	b.ReportAllocs()
	for b.Loop() {
		x, err := semantic.Open(original)
		if err != nil {
			b.Fatal(err)
		}
		y, err := semantic.Open(patched)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := semantic.Compare(b.Context(), semantic.Input{Original: x, Patched: y, Replaced: func(string) bool { return true }}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzOpen damages a linked file: it must be read or refused.
func FuzzOpen(f *testing.F) {
	for _, flags := range [][]string{{"gcc", "-g"}, {"clang", "-gdwarf-4", "-gz"}} {
		b, err := os.ReadFile(buildPath(f, unit("struct conn { int a : 3; enum { X } b; };", useConn), flags...))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := elfobj.Parse(data)
		if err != nil {
			return
		}
		p, err := semantic.Open(file)
		if err != nil {
			return
		}
		_, _ = semantic.Compare(t.Context(), semantic.Input{Original: p, Patched: p, Replaced: func(string) bool { return true }})
	})
}
