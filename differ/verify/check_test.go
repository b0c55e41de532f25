package verify_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/specs"
)

// patchOf makes a patch of one change of the test program.
func patchOf(t *testing.T, n int, flags string) *made {
	t.Helper()
	source, err := filepath.Abs("testdata/program.c")
	if err != nil {
		t.Fatal(err)
	}
	k := &kitchen{TB: t, dir: t.TempDir(), flags: strings.Fields(flags)}
	patched := filepath.Join(k.dir, "patched.c")
	text := fmt.Sprintf("#define PLANT %d\n#line 1 \"%s\"\n#include \"%s\"\n", n, source, source)
	if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := k.make([][2]string{{source, patched}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func findings(list []verify.Finding) (s string) {
	for _, f := range list {
		s += f.String() + "\n"
	}
	return s
}

// TestCheck: what a patch leaves out is missing, by name, and what it
// redirects for nothing is needless.
func TestCheck(t *testing.T) {
	m := patchOf(t, 25, "-O2")
	whole := m.covered()
	if found := verify.Check(m.report, whole); len(found.Missing)+len(found.Needless) > 0 {
		t.Fatalf("%+v", found)
	}
	var same verify.Function
	for _, f := range m.report.Functions {
		if f.Name == "operands" {
			same = f
		}
	}
	tests := []struct {
		name              string
		change            func(c *verify.Covered)
		missing, needless string
	}{
		{name: "function left out", change: func(c *verify.Covered) { c.Functions = nil }, missing: "calls_new: changed, but not in the patch"},
		{name: "refused", change: func(c *verify.Covered) { c.Functions, c.Refused = nil, []string{"calls_new"} }},
		{name: "new function left out", change: func(c *verify.Covered) { c.Carried = nil }, missing: "brought: is new and used"},
		{name: "another size", change: func(c *verify.Covered) { c.Functions[0].Original.Hi++ }, missing: "calls_new: the patch has it at"},
		{name: "another name", change: func(c *verify.Covered) { c.Functions[0].Name = "caller" }, missing: "calls_new: the patch calls what is at"},
		{name: "another address", change: func(c *verify.Covered) { c.Functions[0].Original.Lo++ }, missing: "where the original has no function"},
		{name: "too much", change: func(c *verify.Covered) {
			c.Functions = append(c.Functions, verify.CoveredFunction{Name: same.Name, Original: same.OriginalRange})
		}, needless: "operands: is the same"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := whole
			c.Functions = slices.Clone(whole.Functions)
			tt.change(&c)
			found := verify.Check(m.report, c)
			for _, side := range []struct{ got, want string }{{findings(found.Missing), tt.missing}, {findings(found.Needless), tt.needless}} {
				if !strings.Contains(side.got, side.want) || (side.got == "") != (side.want == "") {
					t.Errorf("found %q, want %q", side.got, side.want)
				}
			}
		})
	}
}

// TestConstantUsers: a changed constant asks for all functions that use it.
func TestConstantUsers(t *testing.T) {
	m := patchOf(t, 10, "-O2")
	c := m.covered()
	if found := verify.Check(m.report, c); len(found.Missing) > 0 {
		t.Fatal(findings(found.Missing))
	}
	c.Functions = slices.DeleteFunc(c.Functions, func(f verify.CoveredFunction) bool { return f.Name == "lookup" })
	if got := findings(verify.Check(m.report, c).Missing); !strings.Contains(got, "lookup: refers to the constant squares") {
		t.Errorf("found %q", got)
	}
	c.Carried = nil
	if got := findings(verify.Check(m.report, c).Missing); !strings.Contains(got, "a constant changed, but it is not in the patch") {
		t.Errorf("found %q", got)
	}
}

// TestPatchBytes changes each byte of what a patch brings. All changes of code
// are found.
func TestPatchBytes(t *testing.T) {
	m := patchOf(t, 9, "-O2")
	p := linked(t, m.patch)
	text := slices.IndexFunc(p.Memory, func(p verify.Piece) bool { return p.Exec && !p.Linker })
	code := p.Memory[text]
	for i := range code.Data {
		at := code.Addr + specs.VAddr(i)
		if !slices.ContainsFunc(p.Symbols, func(s verify.PatchSymbol) bool { return s.Func && s.Addr <= at && at < s.Addr+specs.VAddr(s.Size) }) {
			continue
		}
		if bytes.Contains(code.Data[max(0, i-6):i], []byte("\x0f\x1f\x80")) {
			continue // the operand of a no-op, which means nothing
		}
		p.Memory[text].Data = bytes.Clone(code.Data)
		p.Memory[text].Data[i] ^= 0x11
		found, err := verify.CheckPatch(m.report, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			t.Errorf("byte %#x of the code: not found", i)
		}
	}
	p.Memory[text] = code
	if found, err := verify.CheckPatch(m.report, p); err != nil || len(found) > 0 {
		t.Errorf("%v, %v", found, err)
	}
}

// TestPatchWrong: what a patch brings or binds wrongly is found.
func TestPatchWrong(t *testing.T) {
	m := patchOf(t, 25, "-O2 -no-pie -fno-pie")
	tests := []struct {
		name   string
		change func(p *verify.Patch)
		want   string
	}{
		{"no such function", func(p *verify.Patch) { p.Functions[0].Original.Lo++ }, "no such function"},
		{"another function", func(p *verify.Patch) {
			for _, f := range m.report.Functions {
				if f.Name == "caller" {
					p.Functions[0].Original = f.OriginalRange
				}
			}
		}, "the patch redirects"},
		{"entry into the middle", func(p *verify.Patch) { p.Functions[0].Entry += 2 }, "is no function of the patch"},
		{"a function that nobody knows", func(p *verify.Patch) {
			for i := range p.Symbols {
				if p.Symbols[i].Name == "brought" {
					p.Symbols[i].Name = "stranger"
				}
			}
		}, "does not have"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := linked(t, m.patch)
			tt.change(&p)
			found, err := verify.CheckPatch(m.report, p)
			if err != nil || !strings.Contains(findings(found), tt.want) {
				t.Errorf("%v, %v: want %q", found, err, tt.want)
			}
		})
	}
	p := linked(t, m.patch)
	p.Memory[0].Addr = m.report.Functions[0].PatchedRange.Lo
	if _, err := verify.CheckPatch(m.report, p); err == nil {
		t.Error("memory inside the target is taken")
	}
}
