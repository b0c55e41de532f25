package differ

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/fother/fother/specs/arch"
)

// TestCauses: each cause has a text of its own for machines, which is read back,
// and words for people; nothing else is read.
func TestCauses(t *testing.T) {
	seen := map[string]bool{}
	for c := SourceChanged; c <= UsedBy; c++ {
		text, err := c.MarshalText()
		if err != nil || seen[string(text)] || strings.HasPrefix(string(text), "cause ") {
			t.Errorf("cause %d: text %q, %v", c, text, err)
		}
		seen[string(text)] = true
		var back Cause
		if err := back.UnmarshalText(text); err != nil || back != c {
			t.Errorf("%q is read as %v, %v", text, back, err)
		}
		for _, r := range []Reason{{Cause: c}, {c, []string{"name"}}} {
			if s := r.String(); s == "" || strings.Contains(s, "%") {
				t.Errorf("%v: %q", c, s)
			}
		}
	}
	for _, bad := range []string{"", "cause 0", "magic", "source changed"} {
		var c Cause
		if err := c.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("cause %q is taken", bad)
		}
	}
	if s := (UsedBy + 1).String(); !strings.HasPrefix(s, "cause ") {
		t.Errorf("an unknown cause is %q", s)
	}
}

// TestReasonsText: what is written as JSON comes back, and the text for people is
// bounded however many names there are and however long.
func TestReasonsText(t *testing.T) {
	rs := Reasons{{SourceChanged, nil}, {InlinedCalleeChanged, []string{"a", "b", "c", "d", "e", "f"}}, {CallsAdded, []string{strings.Repeat("é", 1<<20)}}}
	data, err := json.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	var back Reasons
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(rs, back) {
		t.Errorf("back came %v, %v", back, err)
	}
	text := rs.String()
	if want := "source changed; inlined callee changed: a, b, c, d, and 2 more; now calls éé"; !strings.HasPrefix(text, want) || len(text) > 400 {
		t.Errorf("%d bytes: %.200s", len(text), text)
	}
	if !rs.Has(SourceChanged) || rs.Has(CodeChanged) {
		t.Error("Has is wrong")
	}
}

// TestUnknownSource: without a fix the reasons say what differs.
func TestUnknownSource(t *testing.T) {
	if f := (&Fix{}).named("a.c", "f"); f != nil {
		t.Errorf("found %v", f)
	}
	fix := &Fix{Files: []FixFile{
		{Name: "a.c", Functions: []FixFunction{{Name: "f", Edit: EditedBody}, {Name: "twice", Edit: EditedBody}}},
		{Name: "a.h", Functions: []FixFunction{{Name: "C::run", Edit: Unedited}, {Name: "twice", Edit: Unedited}, {Name: "C::~C"}}},
		{Name: "b.c", Functions: []FixFunction{{Name: "other", Edit: EditedBody}}},
	}}
	for symbol, want := range map[string]string{
		"f": "f", "f.isra.0": "f", "f.constprop.1": "f", "_ZN1C3runEi": "C::run",
		"twice": "", "other": "", "_ZN1CD1Ev": "", "run": "", "_ZN1D3runEi": "",
	} {
		got := ""
		if f := fix.named("a.c", symbol); f != nil {
			got = f.Name
		}
		if got != want {
			t.Errorf("%s is %q in the source, want %q", symbol, got, want)
		}
	}
}

// TestRelative: files of debug data are found in the tree by whatever name the
// compiler was given.
func TestRelative(t *testing.T) {
	fix := &Fix{Tree: "/home/me/tree", Dir: "/home/me/tree/src"}
	for _, test := range [][3]string{
		{"", "a.c", "src/a.c"}, {"", "../inc/a.h", "inc/a.h"}, {"/home/me/tree/src", "./a.c", "src/a.c"}, {"../inc", "a.h", "inc/a.h"},
		{"", "/home/me/tree/x.c", "x.c"}, {"/usr/include", "stdio.h", "/usr/include/stdio.h"}, {"", "/home/me/tree2/x.c", "/home/me/tree2/x.c"},
	} {
		if got := fix.relative(test[0], test[1]); got != test[2] {
			t.Errorf("%q %q is %q, want %q", test[0], test[1], got, test[2])
		}
	}
}

// TestFirstDifference: a jump over what came in is not what a person is shown,
// unless nothing else differs.
func TestFirstDifference(t *testing.T) {
	text := func(body string) []byte {
		return []byte("\t.text\n\t.globl\tf\n\t.type\tf, @function\nf:\n\ttestl\t%edi, %edi\n" + body + "\t.size\tf, .-f\n")
	}
	one := "\tje\t.L2\n\tmovl\t$1, %eax\n.L3:\n\tret\n.L2:\n\tmovl\t$2, %eax\n\tret\n"
	for _, test := range []struct{ patched, first, second string }{
		{strings.Replace(one, "\tmovl\t$1", "\taddl\t$1, %edi\n\tmovl\t$1", 1), "movl\t$1, %eax", "addl\t$1, %edi"},
		{strings.Replace(one, ".L2\n", ".L3\n", 1), "je\t.L2", "je\t.L3"},
	} {
		set, err := Diff(Input{Unit: "a.c", Arch: arch.X86_64, Original: text(one), Patched: text(test.patched)})
		if err != nil {
			t.Fatal(err)
		}
		if d := set.Functions[0].First; d == nil || d.Original != test.first || d.Patched != test.second || !set.Functions[0].Reason.Has(CodeChanged) {
			t.Errorf("first difference %v, reasons %v", d, set.Functions[0].Reason)
		}
	}
}
