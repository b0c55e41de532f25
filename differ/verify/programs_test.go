package verify

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/testenv"
)

// flavours are the ways in which the test programs are built.
var flavours = []string{
	"gcc -O0 -g", "gcc -O2 -g", "gcc -O2 -no-pie", "gcc -O3 -g", "gcc -Os", "gcc -O2 -fPIC -shared", "gcc -O2 -static",
	"gcc -O2 -ffunction-sections -fdata-sections -Wl,--gc-sections", "gcc -O2 -fcf-protection -fno-plt -Wl,-z,now",
	"gcc -O1 -no-pie -fno-pie -fno-jump-tables", "gcc -O2 -flto", "gcc -O0 -no-pie -fno-pie", "gcc -O3 -no-pie -fno-pie -march=haswell",
	"clang -O0 -g", "clang -O2", "clang -O2 -fPIE -pie", "clang -O3 -g -fPIC -shared", "clang -Os -no-pie -fno-pie",
	// Section anchors move when data is added before them.
	"aarch64-linux-gnu-gcc -O0 -g", "aarch64-linux-gnu-gcc -O2 -fno-section-anchors", "aarch64-linux-gnu-gcc -O2 -no-pie -fno-pie -fno-section-anchors",
	"aarch64-linux-gnu-gcc -O3 -fPIC -shared -fno-section-anchors",
}

// build compiles a program of testdata and returns it.
func build(t testing.TB, flavour, source string, defines ...string) *elfobj.File {
	t.Helper()
	cc, flags, _ := strings.Cut(flavour, " ")
	if strings.HasSuffix(source, ".cc") {
		cc = map[string]string{"gcc": "g++", "clang": "clang++"}[cc]
		if cc == "" {
			t.Fatalf("no C++ compiler for %s", flavour)
		}
	}
	testenv.Needs(t, cc)
	out := filepath.Join(t.TempDir(), "program")
	args := append(strings.Fields(flags), "-w", "-o", out, source)
	for _, d := range defines {
		args = append(args, "-D"+d)
	}
	if msg, err := exec.Command(cc, append(args, "-lm")...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", cc, args, err, msg)
	}
	f, err := elfobj.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// plants reads from a program what each change is and what it changes.
func plants(t testing.TB, source string) map[int][]string {
	t.Helper()
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	all := map[int][]string{}
	for _, m := range regexp.MustCompile(`(?m)/[/*] ([0-9]+) ([^*\n]*)`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[1])
		all[n] = strings.Split(strings.TrimSpace(m[2]), " ")
	}
	return all
}

// differing returns the names of all that is not the same.
func differing(t testing.TB, a, b *elfobj.File) (names []string, r *Report) {
	t.Helper()
	r, err := Compare(a, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for f := range r.Changes() {
		names = append(names, f.Name)
	}
	for _, d := range r.Data {
		if d.Verdict != Same {
			names = append(names, d.Name)
		}
	}
	return names, r
}

func explain(t testing.TB, r *Report) {
	t.Helper()
	for f := range r.Changes() {
		t.Logf("%s %v: %v", f.Name, f.Verdict, f.First)
	}
	for _, d := range r.Data {
		if d.Verdict != Same {
			t.Logf("data %s %v, used by %v: %v", d.Name, d.Verdict, d.Users, d.First)
		}
	}
}

// parallel runs fn for each element, as many at a time as t.Parallel would.
func parallel[T any](list []T, fn func(T)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, 2)
	for _, e := range list {
		room <- struct{}{}
		wg.Go(func() {
			fn(e)
			<-room
		})
	}
	wg.Wait()
}

// TestNoFalseAlarm: a build differs from one with more in front of everything
// only in what was added, and in main, which uses it.
func TestNoFalseAlarm(t *testing.T) {
	for source, list := range map[string][]string{
		"testdata/program.c":  flavours,
		"testdata/classes.cc": {"gcc -O0", "gcc -O2", "gcc -O2 -no-pie -fno-pie", "clang -O2"},
	} {
		parallel(list, func(flavour string) {
			t.Run(flavour+" "+filepath.Base(source), func(t *testing.T) {
				names, r := differing(t, build(t, flavour, source), build(t, flavour, source, "GROW"))
				if strings.HasSuffix(source, ".cc") { // templates come and go with those who use them
					names = nil
					for f := range r.Changes() {
						if f.Verdict == Changed && !strings.Contains(f.Name, "_GLOBAL__sub_I") && !strings.Contains(f.Name, "__static_init") {
							names = append(names, f.Name)
						}
					}
				}
				names = slices.DeleteFunc(names, func(n string) bool {
					base, _ := family(n)
					return strings.Contains(strings.ToLower(n), "grown") || n == "main" || base == "table.#" || base == "count.#"
				})
				if len(names) > 0 {
					t.Errorf("differ: %v", names)
					explain(t, r)
				}
			})
		})
	}
}

// TestPlants: each change is found, in a build that has more in front of
// everything too. Each is built in two flavours, in all if FOTHER_LONG is 1.
func TestPlants(t *testing.T) {
	const source = "testdata/program.c"
	all := plants(t, source)
	var list []int
	for n := range all {
		list = append(list, n)
	}
	slices.Sort(list)
	for i, flavour := range flavours {
		t.Run(flavour, func(t *testing.T) {
			t.Parallel()
			base := build(t, flavour, source)
			for _, n := range list {
				if (n+i)%11 != 0 && !testenv.Long() {
					continue
				}
				t.Run(strings.Join(all[n], " "), func(t *testing.T) {
					plant(t, base, build(t, flavour, source, fmt.Sprintf("PLANT=%d", n), "GROW"), n, all[n])
				})
			}
		})
	}
}

// TestClasses: what changes in C++ is found, the type that is caught included.
func TestClasses(t *testing.T) {
	const source = "testdata/classes.cc"
	for _, flavour := range []string{"gcc -O2", "clang -O1 -no-pie -fno-pie"} {
		base := build(t, flavour, source)
		for n, want := range map[int]string{1: "area", 2: "_ZTV6Circle", 3: "_Z6caughti", 4: "twice", 5: "_Z7guardedv", 6: "lambda", 7: "_GLOBAL__sub_I"} {
			names, r := differing(t, base, build(t, flavour, source, fmt.Sprintf("PLANT=%d", n)))
			if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, want) }) {
				t.Errorf("%s: plant %d: %s was not found, but %v", flavour, n, want, names)
				explain(t, r)
			}
		}
	}
}

// TestAlignment: alignment and the padding that it brings are no difference.
func TestAlignment(t *testing.T) {
	const source = "testdata/program.c"
	for _, cc := range []string{"gcc -O2", "gcc -O2 -no-pie -fno-pie"} {
		names, r := differing(t, build(t, cc, source), build(t, cc+" -falign-functions=64 -falign-loops=32 -falign-jumps=32", source))
		if len(names) > 0 {
			t.Errorf("%s: differ: %v", cc, names)
			explain(t, r)
		}
	}
}

// isPlant reports whether what was found is what was planted, as gcc or clang
// call it. clang runs the constructor while it compiles.
func isPlant(found, planted string) bool {
	return found == planted || strings.HasPrefix(found, planted+".") || strings.HasSuffix(found, "."+planted) ||
		planted == ".init_array" && found == "shared_value"
}

func plant(t *testing.T, base, changed *elfobj.File, n int, want []string) {
	names, r := differing(t, base, changed)
	for _, w := range want {
		if !slices.ContainsFunc(names, func(n string) bool { return isPlant(n, w) }) {
			t.Errorf("plant %d: %s was not found, but %v", n, w, names)
			explain(t, r)
		}
	}
}
