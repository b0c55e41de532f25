package kpack

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// variableS is a variable of a fix as package differ declares it.
func variableS(section, name, value string) string {
	return fmt.Sprintf("\t.section .kpatch.%[1]s,\"aw\"\n\t.globl %[2]s.kpatch\n\t.internal %[2]s.kpatch\n\t.type %[2]s.kpatch, @object\n%[2]s.kpatch:\t%[3]s\n\t.size %[2]s.kpatch, .-%[2]s.kpatch\n", section, name, value)
}

// user is a new function that refers to a variable.
func user(function, variable string) string {
	return fmt.Sprintf("\t.section .kpatch.text,\"ax\",@progbits\n\t.type %[1]s.kpatch, @function\n%[1]s.kpatch:\n\tmovl %[2]s.kpatch(%%rip), %%eax\n\tret\n\t.size %[1]s.kpatch, .-%[1]s.kpatch\n", function, variable)
}

const newString = "\t.section .kpatch.rodata,\"a\",@progbits\n.Lnew:\t.string \"%s\"\n"

func variablesOf(t *testing.T, more string) (*Patch, map[string]Variable) {
	t.Helper()
	p, err := fixtureWith(t, arch.X86_64, more)
	if err != nil {
		t.Fatal(err)
	}
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back.Variables, p.Variables) {
		t.Errorf("variables %+v, want %+v", back.Variables, p.Variables)
	}
	byName := map[string]Variable{}
	for _, v := range back.Variables {
		byName[v.Name] = v
	}
	return back, byName
}

// TestVariables: what a patch tells of its variables does not depend on where in it
// they are.
func TestVariables(t *testing.T) {
	data := variableS("data", "mode.3", ".quad .Lnew, 5") + fmt.Sprintf(newString, "idle")
	_, v := variablesOf(t, data+user("reads", "mode.3")+user("reads.part.0", "mode.3"))
	mode := v["mode"]
	if !mode.Numbered || mode.Global || mode.Size != 16 || mode.Joined || !reflect.DeepEqual(mode.Users, []string{"reads"}) || mode.Unit == "" {
		t.Errorf("mode: %+v", mode)
	}
	// The fixture's own is reached by the place of its section.
	if f := v["fresh"]; f.Size != 4 || f.Numbered || !f.Joined {
		t.Errorf("fresh: %+v", f)
	}
	_, moved := variablesOf(t, variableS("data", "before", ".quad 1")+variableS("data", "mode.7", ".quad .Lnew, 5")+
		"\t.section .kpatch.rodata,\"a\",@progbits\n\t.string \"more\"\n"+fmt.Sprintf(newString, "idle")+user("reads", "mode.7"))
	if m := moved["mode"]; m.Initial != mode.Initial {
		t.Errorf("mode: %+v, was %+v", m, mode)
	}
	for what, text := range map[string]string{
		"a number": strings.Replace(data, ", 5", ", 6", 1), "a string": strings.Replace(data, "idle", "busy", 1), "nothing": strings.Replace(data, ".Lnew", "0", 1),
	} {
		if _, other := variablesOf(t, text+user("reads", "mode.3")); other["mode"].Initial == mode.Initial {
			t.Errorf("%s is another value and is not seen", what)
		}
	}
}

// TestSharedVariables: all that refers to a variable for which another stands
// refers to that, and nothing else does.
func TestSharedVariables(t *testing.T) {
	p, v := variablesOf(t, variableS("data", "first", ".quad 1, 2")+variableS("data", "second", ".quad first.kpatch+8, second.kpatch")+user("reads", "first"))
	l, err := p.Layout(4096, 100)
	if err != nil {
		t.Fatal(err)
	}
	if l.State.Offset%4096 != 0 || l.State.Size%4096 != 0 || l.State.Size == 0 {
		t.Errorf("the variables are at %+v", l.State)
	}
	const base, there = specs.Addr(0x10000000), specs.Addr(0x20000010)
	l.Shared = make([]specs.Addr, len(p.Variables))
	for i, o := range p.Variables {
		if o.Name == "first" {
			l.Shared[i] = there
		}
	}
	im, err := p.Link(l, base, 0, func(Symbol) (specs.Addr, bool, error) { return base + 0x1000000, false, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range p.Variables {
		own := base + specs.Addr(l.State.Offset)
		if in := im.Variables[i] >= own && im.Variables[i] < own+specs.Addr(l.State.Size); in == (o.Name == "first") || o.Name == "first" && im.Variables[i] != there {
			t.Errorf("%s is at %v", o.Name, im.Variables[i])
		}
	}
	second := p.Symbols[v["second"].Symbol]
	at := l.Offset(second.Section) + second.Value
	words := []uint64{uint64(there) + 8, uint64(base) + at}
	for i, want := range words {
		if got := wordAt(im.Data, at-l.Data.Offset+8*uint64(i)); got != want {
			t.Errorf("word %d of second is %#x, want %#x", i, got, want)
		}
	}
	l.Shared = l.Shared[1:]
	if _, err := p.Link(l, base, 0, nil, nil); err == nil {
		t.Error("linked with too few addresses")
	}
}

func wordAt(b []byte, at uint64) (w uint64) {
	for i := range 8 {
		w |= uint64(b[at+uint64(i)]) << (8 * i)
	}
	return w
}

// TestDamagedVariables: Decode believes nothing of what is told of variables.
func TestDamagedVariables(t *testing.T) {
	for what, damage := range map[string]func(p *Patch, v *Variable){
		"no symbol":    func(p *Patch, v *Variable) { v.Symbol = len(p.Symbols) },
		"a function":   func(p *Patch, v *Variable) { v.Symbol = p.Functions[0].Symbol },
		"another size": func(p *Patch, v *Variable) { v.Size++ },
		"alignment":    func(p *Patch, v *Variable) { v.Align = 3 },
		"no name":      func(p *Patch, v *Variable) { v.Name = "" },
		"a terminal":   func(p *Patch, v *Variable) { v.Type = "\x1b[2J" },
		"users":        func(p *Patch, v *Variable) { v.Users = make([]string, maxUsers+1) },
		"twice":        func(p *Patch, v *Variable) { p.Variables = append(p.Variables, *v) },
		"too many":     func(p *Patch, v *Variable) { p.Variables = make([]Variable, maxVariables+1) },
	} {
		p, _ := variablesOf(t, variableS("data", "one", ".zero 8")+user("reads", "one"))
		damage(p, &p.Variables[0])
		if _, err := p.Encode(); err == nil {
			t.Errorf("%s: was written", what)
		}
	}
}

// TestPlainName: numbers that compilers add are no part of a variable's name.
func TestPlainName(t *testing.T) {
	for symbol, want := range map[string]string{
		"count": "count", "count.0": "count #", "count.lto_priv.2": "count #", "count.1.lto_priv.0": "count #", "parse.count": "parse.count",
		"parse.count.4": "parse.count #", "x.llvm.1234": "x #", "_ZZ5parsevE5count": "_ZZ5parsevE5count", "v1": "v1",
	} {
		name, numbered := plainName(symbol)
		if numbered {
			name += " #"
		}
		if name != want {
			t.Errorf("%s: %s, want %s", symbol, name, want)
		}
	}
}
