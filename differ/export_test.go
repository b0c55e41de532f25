package differ

import (
	"reflect"
	"testing"
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
