package verify

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
)

// BenchmarkCompare compares a program with itself: one of about 5 MB that the
// environment names in VERIFY_ORIGINAL, or the test program linked statically.
func BenchmarkCompare(b *testing.B) {
	f, err := elfobj.Open(filepath.Clean(os.Getenv("VERIFY_ORIGINAL")))
	if err != nil {
		f = build(b, "gcc -O2 -static", "testdata/program.c")
	}
	b.SetBytes(int64(f.Size()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compare(f, f, nil); err != nil {
			b.Fatal(err)
		}
	}
}
