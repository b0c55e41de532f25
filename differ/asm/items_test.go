package asm

import (
	"testing"
)

// TestPool: data among code is a pool if labels name it; what stands before a function
// without any, as the hash of its type, belongs to that.
func TestPool(t *testing.T) {
	for what, pool := range map[string]bool{"": false, ".LC0:\n": true} {
		text := "\t.text\n\t.type f, %function\nf:\n\tret\n\t.size f, .-f\n" + what + "\t.xword 7\n\t.globl g\n\t.type g, %function\ng:\n\tret\n\t.size g, .-g\n"
		u, err := Parse("a.s", text, &aarch64)
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Items) != 3 || u.Pool(1) != pool || u.Pool(0) {
			t.Errorf("%q: %d items, the second a pool: %v", what, len(u.Items), u.Pool(1))
		}
	}
}
