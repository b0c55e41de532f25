package kpack

import (
	"debug/elf"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// target links files with gcc into "linked" and opens the result. Names of
// files may have folders; objects are beside the sources.
func target(t *testing.T, files map[string]string, flags ...string) (linked *elfobj.File, dir string) {
	t.Helper()
	testenv.Needs(t, arch.X86_64.Tuple+"-gcc")
	dir = t.TempDir()
	args := append([]string{"-O1", "-Wl,--build-id", "-o", filepath.Join(dir, "linked")}, flags...)
	for _, name := range []string{"a/unit.c", "b/unit.c", "main.c"} {
		text, ok := files[name]
		if !ok {
			continue
		}
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		src := filepath.Join(t.TempDir(), filepath.Base(name))
		write(t, src, text)
		args = append(args, path+".o")
		compile := []string{"-c", "-o", path + ".o", src}
		for _, f := range flags {
			if !strings.HasPrefix(f, "-Wl,") && f != "-shared" && f != "-static" {
				compile = append(compile, f)
			}
		}
		tool(t, arch.X86_64.Tuple+"-gcc", append([]string{"-O1"}, compile...)...)
	}
	if script, ok := files["script"]; ok {
		args = append(args, "-Wl,--version-script="+write(t, filepath.Join(dir, "script"), script))
	}
	tool(t, arch.X86_64.Tuple+"-gcc", args...)
	return open(t, filepath.Join(dir, "linked")), dir
}

const (
	unitA = "__attribute__((noinline)) static int helper(int n) { return n * 3; }\nstatic int count;\nint a(int n) { return helper(n) + ++count; }\n"
	unitB = "__attribute__((noinline)) static int helper(int n) { return n * 3; }\nstatic int count;\nint b(int n) { return helper(n) - ++count; }\n"
	mainC = "int a(int), b(int);\nint main(int c, char **v) { return a(c) + b(c); }\n"
)

// TestFind looks for the symbols of one unit in linked files.
func TestFind(t *testing.T) {
	two := map[string]string{"a/unit.c": unitA, "b/unit.c": unitB, "main.c": mainC}
	tests := map[string]struct {
		files   map[string]string
		flags   []string
		unit    string
		symbol  string
		address string // which of the local symbols of that name, in the order of the link
		err     string
	}{
		"same file names, first":       {files: two, unit: "a-unit.c.o", symbol: "helper", address: "0"},
		"same file names, second":      {files: two, unit: "b-unit.c.o", symbol: "helper", address: "1"},
		"sections":                     {files: two, flags: []string{"-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"}, unit: "b-unit.c.o", symbol: "helper", address: "1"},
		"static":                       {files: two, flags: []string{"-static"}, unit: "b-unit.c.o", symbol: "helper", address: "1"},
		"static, variable":             {files: two, flags: []string{"-static"}, unit: "a-unit.c.o", symbol: "count", address: "0"},
		"not defined":                  {files: two, unit: "a-unit.c.o", symbol: "nowhere", err: "is not defined in the unit"},
		"number":                       {files: map[string]string{"a/unit.c": "__asm__(\".set number, 42\");\n" + unitA, "b/unit.c": unitB, "main.c": mainC}, unit: "a-unit.c.o", symbol: "number", err: "is a number"},
		"collected":                    {files: map[string]string{"a/unit.c": unitA + "int gone(void) { return 1; }\n", "b/unit.c": unitB, "main.c": mainC}, flags: []string{"-ffunction-sections", "-Wl,--gc-sections"}, unit: "a-unit.c.o", symbol: "gone", err: ErrNotLinked.Error()},
		"collected, the other is left": {files: map[string]string{"a/unit.c": strings.Replace(unitA, "return helper(n) + ++count", "return n", 1) + "int (*use(void))(int) { return helper; }\n", "b/unit.c": strings.Replace(unitB, "- ++count", "", 1), "main.c": mainC}, flags: []string{"-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"}, unit: "a-unit.c.o", symbol: "helper", err: "may belong to another of the 2 files called unit.c"},
		"hidden":                       {files: map[string]string{"a/unit.c": strings.Replace(unitA, "int a(", "__attribute__((visibility(\"hidden\"))) int a(", 1), "b/unit.c": unitB, "main.c": mainC}, flags: []string{"-shared", "-fPIC"}, unit: "a-unit.c.o", symbol: "a", address: "0"},
		"version script":               {files: map[string]string{"a/unit.c": unitA, "b/unit.c": unitB, "main.c": mainC, "script": "V1 { global: main; local: *; };"}, flags: []string{"-shared", "-fPIC"}, unit: "b-unit.c.o", symbol: "b", address: "0"},
		"calls by way of the PLT":      {files: map[string]string{"a/unit.c": unitA + "int twice(int n) { return a(a(n)); }\n", "b/unit.c": unitB, "main.c": mainC}, flags: []string{"-shared", "-fPIC"}, unit: "a-unit.c.o", symbol: "helper", address: "0"},
		"beside an overridden weak":    {files: map[string]string{"a/unit.c": "__attribute__((weak)) int hook(void) { return 1; }\n" + unitA, "b/unit.c": "int hook(void) { return 2222; }\n" + unitB, "main.c": mainC}, unit: "a-unit.c.o", symbol: "helper", address: "0"},
		"overridden weak":              {files: map[string]string{"a/unit.c": "__attribute__((weak)) int hook(void) { return 1; }\n" + unitA, "b/unit.c": "int hook(void) { return 2222; }\n" + unitB, "main.c": mainC}, flags: []string{"-ffunction-sections"}, unit: "a-unit.c.o", symbol: "hook", err: ErrNotLinked.Error()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			linked, dir := target(t, tt.files, tt.flags...)
			x, err := newSymbolIndex(linked, machineX86_64)
			if err != nil {
				t.Fatal(err)
			}
			p, err := newPlacement(x, machineX86_64, open(t, filepath.Join(dir, tt.unit)))
			if err != nil {
				t.Fatal(err)
			}
			_, at, err := p.find(tt.symbol)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("found at %v, error %v, want %q", at, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := x.locals[tt.symbol][int(tt.address[0]-'0')]
			if at != specs.VAddr(want.Value) {
				t.Errorf("found at %v, want %#x", at, want.Value)
			}
		})
	}
}

// binder is a builder that only binds the symbols of one unit.
func binder(t *testing.T, linked, patched *elfobj.File, object string) (*builder, *unitMerge) {
	t.Helper()
	b := &builder{machine: machineX86_64, carried: map[string]int{}, outside: map[outsideKey]int{}}
	b.patch = &Patch{Arch: arch.X86_64, Target: Target{Image: linked.Image()}}
	var err error
	if b.original, err = newSymbolIndex(linked, machineX86_64); err != nil {
		t.Fatal(err)
	}
	if b.patched, err = newSymbolIndex(patched, machineX86_64); err != nil {
		t.Fatal(err)
	}
	um := &unitMerge{number: 1}
	if um.place, err = newPlacement(b.original, machineX86_64, open(t, object)); err != nil {
		t.Fatal(err)
	}
	return b, um
}

// TestPreemption: in a shared library a name means what it means to the
// library's own code.
func TestPreemption(t *testing.T) {
	const (
		a = "int shown(int n) { return n + 1; }\n__attribute__((visibility(\"hidden\"))) int hidden(int n) { return n + 2; }\n" +
			"__attribute__((visibility(\"protected\"))) int protected(int n) { return n + 3; }\n__attribute__((weak)) int weak(int n) { return n + 4; }\nint limit = 3;\n"
		user = "int shown(int), hidden(int), protected(int), weak(int), puts(const char *);\nextern int limit;\n" +
			"int user(int n) { puts(\"\"); return shown(n) + hidden(n) + protected(n) + weak(n) + limit; }\n"
	)
	all := map[string]Binding{"shown": Imported, "hidden": Original, "protected": Original, "weak": Imported, "limit": Imported, "puts": Imported}
	with := func(names string, b Binding) map[string]Binding {
		out := map[string]Binding{}
		for k, v := range all {
			out[k] = v
		}
		for n := range strings.FieldsSeq(names) {
			out[n] = b
		}
		return out
	}
	tests := map[string]struct {
		flags  []string
		script string
		want   map[string]Binding
	}{
		"shared":                         {[]string{"-shared", "-fPIC"}, "", all},
		"-Bsymbolic":                     {[]string{"-shared", "-fPIC", "-Wl,-Bsymbolic"}, "", with("shown weak limit", Original)},
		"-Bsymbolic-functions":           {[]string{"-shared", "-fPIC", "-Wl,-Bsymbolic-functions"}, "", with("shown weak", Original)},
		"version script":                 {[]string{"-shared", "-fPIC"}, "V1 { global: user; weak; local: *; };", with("shown limit", Original)},
		"position independent program":   {[]string{"-fPIE", "-pie", "-rdynamic"}, "", with("shown weak limit", Original)},
		"program with a fixed address":   {[]string{"-no-pie", "-rdynamic"}, "", with("shown weak limit", Original)},
		"shared, section by section, gc": {[]string{"-shared", "-fPIC", "-ffunction-sections", "-Wl,--gc-sections"}, "", all},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"a/unit.c": a, "main.c": user + "int main(void) { return user(1); }\n"}
			if tt.script != "" {
				files["script"] = tt.script
			}
			linked, dir := target(t, files, tt.flags...)
			b, um := binder(t, linked, linked, filepath.Join(dir, "main.c.o"))
			for symbol, want := range tt.want {
				s, err := b.outsideSymbol(um, symbol, howto{branch: true, call: true})
				if err != nil || s.Binding != want {
					t.Errorf("%s: binding %d, error %v, want %d", symbol, s.Binding, err, want)
				}
				if want == Imported && err == nil && s.Import.Slot == 0 {
					t.Errorf("%s: no slot", symbol)
				}
			}
		})
	}
}

// TestPreemptedCarried: a call of a carried function that another object may
// replace goes the way of the original's.
func TestPreemptedCarried(t *testing.T) {
	const source = "__attribute__((noinline)) int shown(int n) { return n + 1; }\nint user(int n) { return shown(n) + 3; }\n"
	for flag, want := range map[string]Binding{"-Wl,-Bsymbolic": Carried, "-Wl,-z,lazy": Imported} {
		linked, dir := target(t, map[string]string{"main.c": source}, "-shared", "-fPIC", flag)
		b, um := binder(t, linked, linked, filepath.Join(dir, "main.c.o"))
		um.symbols, um.symbol = []elfobj.Symbol{{Name: "shown.kpatch", Section: 1, Bind: elf.STB_GLOBAL}}, map[int]int{0: 0}
		b.patch.Symbols = []Symbol{{Name: "shown.kpatch"}}
		i, err := b.bind(um, 0, machineX86_64.relocs[uint32(elf.R_X86_64_PLT32)])
		if err != nil || b.patch.Symbols[i].Binding != want {
			t.Errorf("%s: %+v, error %v, want binding %d", flag, b.patch.Symbols[i], err, want)
		}
	}
}

// TestVersions: of several versions of a name the code of the library itself
// means the default one.
func TestVersions(t *testing.T) {
	linked, dir := target(t, map[string]string{
		"a/unit.c": "__asm__(\".symver old, f@V1\\n.symver new, f@@V2\\n.symver older, g@V1\");\nint old(void) { return 1; }\nint new(void) { return 2; }\nint older(void) { return 3; }\n",
		"main.c":   "int f(void);\nint user(void) { return f(); }\n",
		"script":   "V1 { global: f; g; user; local: *; }; V2 { } V1;",
	}, "-shared", "-fPIC")
	b, um := binder(t, linked, linked, filepath.Join(dir, "main.c.o"))
	s, err := b.outsideSymbol(um, "f", howto{call: true})
	if err != nil || s.Binding != Imported || s.Import.Version != "V2" || s.Import.Slot == 0 {
		t.Errorf("f is %+v, import %+v, error %v; want the version V2 with a slot", s, s.Import, err)
	}
	if s, err := b.outsideSymbol(um, "g", howto{call: true}); err == nil && s.Binding == Original {
		t.Errorf("g is bound to its old version: %+v", s)
	}
}

// TestBindRefuses has names that a patch must not bind.
func TestBindRefuses(t *testing.T) {
	linked, dir := target(t, map[string]string{
		"a/unit.c": "__thread int tls;\nstatic int one(void) { return 1; }\nstatic void *pick(void) { return one; }\nint multi(void) __attribute__((ifunc(\"pick\")));\n" +
			"static int multi2(void) __attribute__((ifunc(\"pick\")));\nint call(void) { return multi2(); }\n__asm__(\".globl number\\n.set number, 42\");\n",
		"main.c": "#include <stdio.h>\nextern __thread int tls;\nint multi(void), call(void);\nint main(void) { fputs(\"\", stdout); return multi() + call() + tls; }\n",
	}, "-fPIE", "-pie", "-fno-builtin")
	b, um := binder(t, linked, linked, filepath.Join(dir, "a-unit.c.o"))
	um.unit.Local = map[string]bool{"multi2": true}
	b.carried["fputs.kpatch"] = 0
	b.patch.Symbols = make([]Symbol, 1)
	for name, want := range map[string]string{
		"tls": "thread-local", "number": "is a number",
		"nowhere": "neither in the original", "fputs": "is defined by the fix, but the original imports it",
	} {
		if s, err := b.outsideSymbol(um, name, howto{call: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, error %v, want %q", name, s, err, want)
		}
	}
	for _, name := range []string{"multi", "multi2"} {
		if s, err := b.outsideSymbol(um, name, howto{call: true}); err != nil || s.Import == nil || s.Import.Slot == 0 {
			t.Errorf("a call of %s: %+v, error %v, want a slot of the target", name, s, err)
		}
		if s, err := b.outsideSymbol(um, name, howto{}); !errors.Is(err, errIndirectAddress) {
			t.Errorf("the address of %s: %+v, error %v, want %v", name, s, err, errIndirectAddress)
		}
	}
	um.symbols = []elfobj.Symbol{{Name: "nowhere", Bind: elf.STB_WEAK}}
	if _, err := b.bind(um, 0, howto{}); !errors.Is(err, errNowhere) {
		t.Errorf("a weak symbol that nobody defines: error %v, want %v", err, errNowhere)
	}
	data := Symbol{Binding: Imported, Import: &Import{}}
	for typ, ok := range map[elf.R_X86_64]bool{elf.R_X86_64_PC32: false, elf.R_X86_64_32S: false, elf.R_X86_64_64: true, elf.R_X86_64_GOTPCREL: true} {
		if err := checkDirect(data, machineX86_64.relocs[uint32(typ)]); (err == nil) != ok {
			t.Errorf("%v to imported data: %v", typ, err)
		}
	}
}

// TestCanonicalPLT: the address of an imported function is the one that the
// program gave it.
func TestCanonicalPLT(t *testing.T) {
	linked, dir := target(t, map[string]string{
		"main.c": "#include <string.h>\nint (*volatile f)(const char *, const char *);\nint main(int c, char **v) { f = strcmp; return f(v[0], \"x\"); }\n",
	}, "-no-pie", "-fno-pie", "-fno-builtin")
	b, um := binder(t, linked, linked, filepath.Join(dir, "main.c.o"))
	um.symbols = []elfobj.Symbol{{Name: "strcmp"}}
	address, err := b.bind(um, 0, machineX86_64.relocs[uint32(elf.R_X86_64_32)])
	if err != nil || b.patch.Symbols[address].Binding != Original {
		t.Fatalf("error %v, symbols %+v", err, b.patch.Symbols)
	}
	call, err := b.bind(um, 0, machineX86_64.relocs[uint32(elf.R_X86_64_PLT32)])
	if err != nil || b.patch.Symbols[call].Binding != Imported {
		t.Errorf("a call goes to %+v, error %v", b.patch.Symbols[call], err)
	}
}

// TestFolded: one function must not change another that the linker folded
// with it.
func TestFolded(t *testing.T) {
	testenv.Needs(t, "ld.gold")
	linked, dir := target(t, map[string]string{
		"a/unit.c": "int one(int n) { return n * 7 + 3; }\nint alias(int) __attribute__((alias(\"one\")));\n", "b/unit.c": "int two(int n) { return n * 7 + 3; }\n",
		"main.c": "int one(int), two(int);\nint main(int c, char **v) { return one(c) + two(c); }\n",
	}, "-fuse-ld=gold", "-ffunction-sections", "-Wl,--icf=all")
	b, um := binder(t, linked, linked, filepath.Join(dir, "a-unit.c.o"))
	s, at, err := um.place.find("one")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.folded(um, s, at); got != "two" {
		t.Errorf("folded with %q, want two", got)
	}
}

// TestColdOfCopy: the cold part of a function that was copied from another unit
// is the only one of its name, else there is no telling. A unit's own function
// has none but the unit's.
func TestColdOfCopy(t *testing.T) {
	part := func(at uint64) localSymbol {
		return localSymbol{Symbol: elfobj.Symbol{Name: "f.cold", Value: at, Size: 16}}
	}
	um := &unitMerge{place: &placement{byName: map[string]int{}}}
	for name, c := range map[string]struct {
		parts  []localSymbol
		copied bool
		lo     specs.VAddr
		err    string
	}{
		"none":    {copied: true},
		"one":     {[]localSymbol{part(0x1000)}, true, 0x1000, ""},
		"two":     {[]localSymbol{part(0x1000), part(0x2000)}, true, 0, "one of 2"},
		"another": {[]localSymbol{part(0x1000), part(0x2000)}, false, 0, ""},
	} {
		b := &builder{original: &symbolIndex{locals: map[string][]localSymbol{"f.cold": c.parts}}}
		cold, err := b.cold(um, "f", c.copied)
		if cold.Lo != c.lo || (cold.Size() != 0) != (c.lo != 0) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", name, cold, err)
		}
	}
}
