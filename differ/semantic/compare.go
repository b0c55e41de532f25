package semantic

import (
	"cmp"
	"context"
	"debug/dwarf"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Input is the debug data of both builds of one linked file, and what is known
// of the patch.
type Input struct {
	Original, Patched *Program
	// Same, if set, reports whether the units made from a source file, an
	// absolute path, have the same assembly text in both builds, with debug
	// data. They are not read.
	Same func(source string) bool
	// Replaced reports whether the patch replaces the function of that symbol,
	// and no call of it is under way when the patch goes in.
	Replaced func(symbol string) bool
}

// Compare compares what two builds say of types, variables and functions. The
// error is [ErrNoData] if they have no unit in common.
func Compare(ctx context.Context, in Input) (*Report, error) {
	pairs := in.pairs()
	if len(pairs) == 0 {
		return nil, ErrNoData
	}
	report := &Report{}
	var todo [][2]*unit
	for _, p := range pairs {
		if in.Same != nil && in.Same(p[0].source) {
			report.Same++
		} else {
			todo = append(todo, p)
		}
	}
	parts := make([]Report, len(todo))
	errs := make([]error, len(todo))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		wg.Go(func() {
			for i := range work {
				errs[i] = in.unit(todo[i][0], todo[i][1], &parts[i])
			}
		})
	}
	for i := range todo {
		if ctx.Err() != nil {
			break
		}
		work <- i
	}
	close(work)
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return nil, err
	}
	for _, part := range parts {
		report.Units++
		report.Lines = append(report.Lines, part.Lines...)
		for _, c := range part.Changes {
			report.add(c)
		}
	}
	slices.SortStableFunc(report.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), slices.Compare(a.Details, b.Details))
	})
	return report, nil
}

// pairs pairs the units of both builds by source and order.
func (in *Input) pairs() (pairs [][2]*unit) {
	type key struct {
		source string
		n      int
	}
	number := func(units []*unit, yield func(key, *unit)) {
		seen := map[string]int{}
		for _, u := range units {
			if u.whole {
				yield(key{u.source, seen[u.source]}, u)
				seen[u.source]++
			}
		}
	}
	after := map[key]*unit{}
	number(in.Patched.units, func(k key, u *unit) { after[k] = u })
	number(in.Original.units, func(k key, u *unit) {
		if p := after[k]; p != nil {
			pairs = append(pairs, [2]*unit{u, p})
		}
	})
	return pairs
}

// comparison is that of one unit.
type comparison struct {
	*Input
	a, b   *tree
	report *Report
}

func (in *Input) unit(x, y *unit, report *Report) error {
	if in.Original.linesOnly(x) || in.Patched.linesOnly(y) {
		report.Lines = append(report.Lines, x.source)
		return nil
	}
	defer x.drop()
	defer y.drop()
	a, err := in.Original.load(x)
	if err != nil {
		return err
	}
	b, err := in.Patched.load(y)
	if err != nil {
		return err
	}
	c := &comparison{in, a, b, report}
	c.types()
	c.enumerators()
	c.variables()
	c.functions()
	return nil
}

// levels matches the options by which gcc was told how much debug data to write,
// which it repeats in what it says of itself.
var levels = regexp.MustCompile(`^-g(gdb)?[0-3]?$`)

const assembler = 0x8001 // DW_LANG_Mips_Assembler

// LinesOnly returns the source files of the units that were compiled with -g1 or
// -gline-tables-only, so that nothing is said of their types.
func (p *Program) LinesOnly() (sources []string) {
	for _, u := range p.units {
		if u.whole && p.linesOnly(u) {
			sources = append(sources, u.source)
		}
	}
	return sources
}

// linesOnly looks for a function with the place of its declaration, which clang
// tells with types only; gcc tells how it was called.
func (p *Program) linesOnly(u *unit) bool {
	if u.lang == assembler {
		return false
	}
	few := false
	for option := range strings.FieldsSeq(u.producer) {
		if levels.MatchString(option) {
			few = strings.HasSuffix(option, "1") // the last one counts
		}
	}
	if few {
		return true
	}
	if !u.code || !strings.Contains(u.producer, "clang") {
		return false
	}
	r := p.data.Reader()
	r.Seek(u.off)
	for {
		e, err := r.Next()
		if err != nil || e == nil || e.Offset >= u.end {
			return true
		}
		if e.Tag == dwarf.TagSubprogram && e.Val(dwarf.AttrDeclLine) != nil && e.Val(dwarf.AttrInline) == nil {
			return false
		}
	}
}

// Declared returns where the unit with the given source declares a variable or
// function, by the name of its symbol: the base name of the file and the line, or "" and 0 if
// that is not known or not certain.
func (p *Program) Declared(source, symbol string) (file string, line int) {
	for _, u := range p.units {
		if u.source != source {
			continue
		}
		t, err := p.load(u)
		if err != nil {
			continue
		}
		note := func(name string, r ref) {
			at, n := r.t.place(r.i)
			switch {
			case stem(name) != stem(symbol):
			case file == "" && line == 0:
				file, line = at, n
			case file != at || line != n:
				file, line = "", -1
			}
		}
		t.statics(func(_ string, i int32) { note((ref{t, i}).symbol(), ref{t, i}) })
		t.definitions(note)
		u.drop()
	}
	return file, max(line, 0)
}

// where tells the place of a declaration.
func (t *tree) where(i int32) string {
	if file, line := t.place(i); file != "" {
		return fmt.Sprintf("%s:%d", file, line)
	}
	return ""
}

// place returns the base name of the file and the line of a declaration, or "".
func (t *tree) place(i int32) (file string, line int) {
	n := (ref{t, i}).told(func(n *node) bool { return n.line > 0 })
	if n == nil {
		return "", 0
	}
	r, err := t.p.data.LineReader(t.u.entry)
	if err != nil || r == nil {
		return "", 0
	}
	files := r.Files()
	if n.file < 0 || n.file >= int64(len(files)) || files[n.file] == nil {
		return "", 0
	}
	return filepath.Base(files[n.file].Name), int(n.line)
}

// title is what a person calls a type.
func (t *tree) title(i int32) string {
	key := t.key[i]
	if rest, ok := strings.CutPrefix(key, "struct "); ok && t.nodes[i].tag == dwarf.TagClassType {
		return "class " + rest
	}
	return key
}

// types compares the types that both builds define. What only follows from
// another change is told with that: the one is a user of the other.
func (c *comparison) types() {
	changed := map[int32][]detail{} // of the original
	for _, x := range c.a.order {
		if y, ok := c.b.byKey[c.a.key[x]]; ok {
			if details := layout(ref{c.a, x}, ref{c.b, y}, "", 0); len(details) > 0 {
				changed[x] = details
			}
		}
	}
	within := map[int32]map[int32]bool{}
	follow := map[int32]bool{}
	for x := range changed {
		within[x] = c.a.within(x)
		for outer := range within[x] {
			if outer != x && follows(ref{c.a, outer}, ref{c.b, c.b.byKey[c.a.key[outer]]}, changed[outer]) {
				follow[outer] = true
			}
		}
	}
	for _, x := range c.a.order {
		if changed[x] == nil || follow[x] {
			continue
		}
		y := c.b.byKey[c.a.key[x]]
		ch := Change{Kind: Type, Name: c.a.title(x), Where: c.b.where(y), Details: textsOf(changed[x])}
		c.users(x, within[x], &ch)
		ch.Harmless = c.harmless(c.a, x, within[x]) && c.harmless(c.b, y, c.b.within(y))
		c.report.Changes = append(c.report.Changes, ch)
	}
}

// enumerators compares those of enumerations without a name, which are
// constants rather than types.
func (c *comparison) enumerators() {
	now := map[string]*node{}
	each := func(t *tree, yield func(name string, i int32)) {
		for k := range t.nodes {
			p := t.nodes[k].parent
			if t.nodes[k].tag == dwarf.TagEnumerator && p >= 0 && t.key[p] == "" {
				yield(t.qualified(p, t.nodes[k].name), int32(k))
			}
		}
	}
	each(c.b, func(name string, i int32) { now[name] = &c.b.nodes[i] })
	each(c.a, func(name string, i int32) {
		if n, was := now[name], c.a.nodes[i].value; n != nil && n.value != was {
			c.report.Changes = append(c.report.Changes, Change{Kind: Enumerator, Name: "enumerator " + name, Where: c.b.where(n.parent),
				Details: []string{fmt.Sprintf("%d became %d", was, n.value)}})
		}
	})
}

// variables compares the variables that have storage as long as the program
// runs.
func (c *comparison) variables() {
	now := map[string]int32{}
	c.b.statics(func(name string, i int32) { now[name] = i })
	c.a.statics(func(name string, x int32) {
		y, ok := now[name]
		if !ok || c.a.canonOf(x) == c.b.canonOf(y) {
			return
		}
		old, patched := (ref{c.a, x}).typ(), (ref{c.b, y}).typ()
		if !c.a.nodes[x].external && old.constant() && patched.constant() {
			return // the patch brings its own
		}
		ch := Change{Kind: Variable, Name: "variable " + name, Where: c.b.where(y)}
		if px, py := old.plain(), patched.plain(); nameless(px) && nameless(py) {
			ch.Details = textsOf(layout(px, py, "", 0))
		}
		if len(ch.Details) == 0 {
			ch.Details = []string{"type " + became(old, patched)}
		}
		c.report.Changes = append(c.report.Changes, ch)
	})
}

// statics calls yield for each variable that has storage of its own, with a
// name that the other build has too.
func (t *tree) statics(yield func(name string, i int32)) {
	seen := map[string]int{}
	for k := range t.nodes {
		i := int32(k)
		n := &t.nodes[i]
		if n.tag != dwarf.TagVariable || n.decl || n.origin != 0 && t.local(n.origin) < 0 || !t.isStatic(i) {
			continue // another unit tells of one that has its origin there
		}
		name := t.qualified(i, (ref{t, i}).name())
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, seen[name])
		}
		yield(name, i)
	}
}

// isStatic reports whether a variable is there as long as the program runs.
// Debug data for link-time optimization tells its place elsewhere.
func (t *tree) isStatic(i int32) bool {
	switch n := &t.nodes[i]; {
	case n.place == static:
		return true
	case n.place == automatic || n.constant || n.decl:
		return false
	}
	r := ref{t, i}
	return t.p.objects[stem(r.symbol())] && t.nodes[i].parent >= 0 && !t.instance(i)
}

// instance reports whether an entry belongs to one inlined copy of a function:
// what it is says the function itself.
func (t *tree) instance(i int32) bool {
	for ; i >= 0; i = t.nodes[i].parent {
		if t.nodes[i].tag == dwarf.TagInlinedSubroutine || t.nodes[i].tag == dwarf.TagSubprogram && t.nodes[i].origin != 0 {
			return true
		}
	}
	return false
}

// functions compares the signatures of the functions that both builds define.
func (c *comparison) functions() {
	now := map[string]ref{}
	c.b.definitions(func(symbol string, r ref) { now[symbol] = r })
	c.a.definitions(func(symbol string, x ref) {
		y, ok := now[symbol]
		if !ok {
			return
		}
		delete(now, symbol)
		if x.signature(0) == y.signature(0) {
			return
		}
		ch := Change{Kind: Function, Name: "function " + c.a.qualified(x.i, x.name()), Where: c.b.where(y.i), Symbols: []string{symbol}}
		a, b := x.showCall(0), y.showCall(0)
		if a == b {
			a, b = x.signature(0), y.signature(0)
		}
		ch.Details = []string{a + " became " + b}
		ch.Symbols = union(ch.Symbols, c.Original.aliases[symbol])
		ch.Exported = c.Original.exported[symbol]
		c.report.Changes = append(c.report.Changes, ch)
	})
}

// definitions calls yield for each function with code of its own, or, for
// link-time optimization, one that another unit has the code of.
func (t *tree) definitions(yield func(symbol string, r ref)) {
	for k := range t.nodes {
		n := &t.nodes[k]
		if n.tag != dwarf.TagSubprogram || n.decl {
			continue
		}
		if r := (ref{t, int32(k)}); r.symbol() != "" {
			yield(r.symbol(), r)
		}
	}
}
