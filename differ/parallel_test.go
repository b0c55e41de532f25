package differ_test

import (
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/testenv"
)

// parallelInputs are units of several compilers in which some lines differ.
func parallelInputs(tb testing.TB) []differ.Input {
	tb.Helper()
	testenv.Needs(tb, "gcc", "g++", "clang", "clang++", "aarch64-linux-gnu-gcc")
	texts, err := foldTexts()
	if err != nil {
		tb.Fatal(err)
	}
	var all []differ.Input
	for i, text := range texts {
		random := rand.New(rand.NewPCG(uint64(i), 3))
		for range 4 {
			all = append(all, differ.Input{Unit: text.name, Arch: text.arch, Original: []byte(text.text), Patched: []byte(edit(text.text, edits(random, 3)))})
		}
	}
	return all
}

type outcome struct {
	set *differ.ChangeSet
	err string
}

func outcomeOf(in differ.Input) (o outcome) {
	set, err := differ.Diff(in)
	if o.set = set; err != nil {
		o.err = err.Error()
	}
	return o
}

// TestParallel compares many units at once, on one processor and on several and
// in any order: each time they say the same, byte for byte.
func TestParallel(t *testing.T) {
	all := parallelInputs(t)
	want := make([]outcome, len(all))
	for i, in := range all {
		want[i] = outcomeOf(in)
	}
	for round, processors := range []int{1, 4, 4} {
		before := runtime.GOMAXPROCS(processors)
		got := make([]outcome, len(all))
		var wg sync.WaitGroup
		for _, i := range rand.New(rand.NewPCG(uint64(round), 1)).Perm(len(all)) {
			wg.Go(func() { got[i] = outcomeOf(all[i]) })
		}
		wg.Wait()
		runtime.GOMAXPROCS(before)
		for i := range all {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("%s on %d processors: %+v, want %+v", all[i].Unit, processors, got[i], want[i])
			}
		}
	}
}

// BenchmarkUnits compares many units, as many at once as there are processors.
func BenchmarkUnits(b *testing.B) {
	all := parallelInputs(b)
	size := 0
	for _, in := range all {
		size += len(in.Original) + len(in.Patched)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for first := range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				for i := first; i < len(all); i += runtime.GOMAXPROCS(0) {
					outcomeOf(all[i])
				}
			})
		}
		wg.Wait()
	}
}
