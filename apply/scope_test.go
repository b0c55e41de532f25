package apply

import (
	"debug/elf"
	"slices"
	"strings"
	"testing"
)

// TestScopes: the dynamic linker's list for an executable is read, and begins
// with it. Without one, a name that two libraries define is refused, and one
// that the executable itself defines is not.
func TestScopes(t *testing.T) {
	bin := compile(t, "scopes", "-fPIE", "-pie", "-rdynamic")
	r := start(t, bin)
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	exe := p.executable()
	if s := p.scopesOf(exe); len(s) != 1 || len(s[0]) < 2 || s[0][0] != exe || slices.ContainsFunc(s[0], func(o *object) bool { return o == nil || o.Path == "[vdso]" }) {
		t.Fatalf("scopes %v", s)
	}
	own, _, err := p.lookup(exe, "malloc", "")
	if err != nil || own == exe {
		t.Fatalf("malloc is in %v: %v", own, err)
	}
	twice := func(o *object) {
		other := *o
		other.Path = "/other"
		p.objects = append(p.objects, &other)
		p.scopes = map[*object][][]*object{exe: nil}
	}
	twice(own)
	if _, _, err := p.lookup(exe, "malloc", ""); err == nil || !strings.Contains(err.Error(), "/other define it") {
		t.Errorf("malloc of two libraries: error %v", err)
	}
	twice(exe)
	if o, s, err := p.lookup(exe, "main", ""); err != nil || o != exe || s.Type != elf.STT_FUNC {
		t.Errorf("main is in %v: %v", o, err)
	}
}
