package main

import (
	"path/filepath"
	"testing"
)

// TestPullDenied: a pull leaves alone what the deny list has, and says so.
func TestPullDenied(t *testing.T) {
	prog := fixture(t)
	s := newShelf(t)
	s.publish(prog.patch(t, "default", 1))
	a := ask(t, prog)
	list := filepath.Join(t.TempDir(), "deny")
	write(t, list, []byte("exe "+prog.bin+"\n"))
	s.pull(4, `left alone: the deny list has "exe `+prog.bin, "-p", a.pid(), "--deny", list)
	s.pull(4, `"left_alone": [`, "-p", a.pid(), "--deny", list, "--json")
	a.expect("2")
	write(t, list, []byte("exe "+prog.bin+"x\n"))
	s.pull(0, "applied", "-p", a.pid(), "--deny", list)
	a.expect("41")
}
