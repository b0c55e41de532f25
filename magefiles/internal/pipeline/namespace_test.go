package pipeline

import (
	"strconv"
	"testing"
)

// TestNamespaceOnce: whatever path a manifest names, a program in a namespace of
// its own knows that it is in one, and makes no other.
func TestNamespaceOnce(t *testing.T) {
	for _, folder := range []string{"/a/b", "/a=b/c", `/a"=b`, "/a\nb"} {
		t.Setenv(placeVariable, strconv.Quote(folder))
		if inside, err := insideNamespace(folder); err != nil || !inside {
			t.Errorf("%q: %v, %v", folder, inside, err)
		}
		if inside, err := insideNamespace("/a"); err != nil || inside {
			t.Errorf("/a in %q: %v, %v", folder, inside, err)
		}
		if err := InNamespace(t.Context(), folder, t.TempDir()); err == nil {
			t.Errorf("%q: a namespace in a namespace", folder)
		}
	}
}
