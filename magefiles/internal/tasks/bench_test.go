package tasks

import (
	"strings"
	"testing"
)

func TestPrintBenchmarks(t *testing.T) {
	const in = `goos: linux
goarch: amd64
pkg: example.org/a
cpu: some
BenchmarkStop/threads=1-2         	       1	      3679 apply-p99-µs	        30.80 apply-µs	         1.334 apply/empty	 12 B/op	 3 allocs/op
BenchmarkStop/threads=500/large-2 	       1	      8634 apply-p99-µs	       433.9 apply-µs	         0.05406 apply/empty	 12 B/op	 3 allocs/op
BenchmarkMaps
BenchmarkMaps-2   	     100	   1234 ns/op	 7 B/op	 1 allocs/op
--- FAIL: BenchmarkBad
    bad_test.go:1: why
PASS
ok  	example.org/a	1.2s
`
	const want = `
example.org/a: Stop
  apply-µs (p99)  apply/empty
    30.80 (3679)        1.334  threads=1
    433.9 (8634)      0.05406  threads=500/large

example.org/a: Maps
  ns/op  B/op  allocs/op
   1234     7          1  
--- FAIL: BenchmarkBad
    bad_test.go:1: why
ok  	example.org/a	1.2s
`
	var out strings.Builder
	printBenchmarks(&out, strings.NewReader(in))
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
}
