package asm

import (
	"strconv"
	"strings"
	"testing"
)

// TestNameTable gives many names numbers: in the order in which they come, each
// one, also when their text is gone.
func TestNameTable(t *testing.T) {
	table := newNameTable(0)
	name := func(i int) string { return strings.Repeat("n", i%300) + strconv.Itoa(i) }
	buffer := make([]byte, 0, 1<<10)
	for range 2 {
		for i := range 5000 {
			buffer = append(buffer[:0], name(i)...)
			if n := table.number(string(buffer)); int(n) != i {
				t.Fatalf("%q has number %d, want %d", buffer, n, i)
			}
		}
	}
	for i := range 5000 {
		if n := table.find(name(i)); int(n) != i || table.name(n) != name(i) {
			t.Fatalf("%q is found as %d, %q", name(i), n, table.name(n))
		}
	}
	if n := table.find("other"); n != -1 {
		t.Errorf("a name that never came has number %d", n)
	}
	if n := table.number(""); n != 5000 || table.find("") != 5000 {
		t.Errorf("the empty name has number %d", n)
	}
}
