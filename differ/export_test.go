package differ

import (
	"reflect"
	"testing"

	"github.com/fother/fother/differ/asm"
)

// DiffBoth is Diff. It fails the test unless comparing every statement says the
// same as the short cut for functions that both builds have alike.
func DiffBoth(t testing.TB, in Input) (*ChangeSet, error) {
	t.Helper()
	short, errShort := diff(in, false)
	whole, errWhole := diff(in, true)
	if (errShort == nil) != (errWhole == nil) || errShort != nil && errShort.Error() != errWhole.Error() {
		t.Errorf("with folded functions: %v\nwithout: %v", errShort, errWhole)
	} else if !reflect.DeepEqual(short, whole) {
		t.Errorf("with folded functions: %+v\nwithout: %+v", short, whole)
	}
	return short, errShort
}

// Folds reports whether the two builds can be compared by what folded functions
// refer to.
func Folds(t testing.TB, in Input) bool {
	t.Helper()
	d, err := asm.DialectOf(in.Arch)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := asm.NewPair("a", textOf(in.Original), "b", textOf(in.Patched), d)
	if err != nil {
		t.Fatal(err)
	}
	a, b, err := pair.Parse(func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if a.Clash || b.Clash || len(a.Folds) == 0 {
		return false
	}
	p := compare(in, a, b)
	return !p.a.lost && !p.b.lost
}
