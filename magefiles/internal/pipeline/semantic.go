package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/semantic"
	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// semantics compares what the debug data of both builds says of types,
// variables and signatures, and holds it against what the spec allows.
type semantics struct {
	spec    specs.Spec
	tree    string                   // where both builds ran
	debug   map[string]compiler.Pair // the builds with debug data, by path
	found   []string                 // names of all changes
	partial bool                     // not everything could be compared
	lenient bool                     // that is no reason to refuse the fix
}

func newSemantics(s specs.Spec, l Layout, lenient bool) (*semantics, error) {
	debug, err := debugPairs(l.Debug)
	return &semantics{spec: s, tree: l.Tree, debug: debug, lenient: lenient}, err
}

// compare compares the builds of one deliverable that gets a patch. Unchecked
// says what was not compared, and why.
func (s *semantics) compare(ctx context.Context, name string, p compiler.Pair, d *diffs) (unchecked []string, refused []error, err error) {
	if !hasTypes(p) {
		return nil, nil, nil
	}
	in, pair, unchecked := s.open(p)
	if len(unchecked) > 0 {
		s.partial = true
		s.found = append(s.found, specs.NoDebugData)
	}
	if in == nil {
		return unchecked, nil, nil
	}
	patch := newContents(p, d, s.spec.Consistency.NextCall)
	same := map[string]bool{}
	for _, u := range pair.Units {
		if u.Original != nil {
			was, seen := same[u.Original.Source]
			same[u.Original.Source] = u.Same() && (was || !seen)
		}
	}
	in.Same = func(source string) bool { return same[source] }
	in.Replaced = patch.replaces
	report, err := semantic.Compare(ctx, *in)
	if err != nil {
		return unchecked, nil, err
	}
	uses, err := usesOf(p, report.Changes, patch)
	if err != nil {
		return unchecked, nil, err
	}
	for i, c := range report.Changes {
		s.found = append(s.found, c.Name)
		if c.Harmless || s.allows(c.Name) {
			continue
		}
		if c.Kind == semantic.Function {
			if uses[i] == nil {
				continue
			}
			c.Details = append(slices.Clip(c.Details), uses[i].String())
		}
		refused = append(refused, &SemanticError{Target: name, Change: c})
	}
	return unchecked, refused, nil
}

// notCompared is what is not known of a deliverable without debug data.
const notCompared = "layouts of types, types of variables and signatures of functions are not compared"

// open opens the debug data of the builds that tell more of a deliverable. It
// returns no input if neither tells anything.
func (s *semantics) open(p compiler.Pair) (*semantic.Input, compiler.Pair, []string) {
	var best *semantic.Input
	var pair compiler.Pair
	var unchecked []string
	var why error
	for _, try := range []compiler.Pair{p, s.debug[p.Original.Output]} {
		if try.Original == nil || best != nil && len(unchecked) == 0 {
			continue
		}
		original, patched, untold, err := openPrograms(try)
		if err != nil {
			why = err
			continue
		}
		if best == nil || len(untold) < len(unchecked) {
			best, pair, unchecked = &semantic.Input{Original: original, Patched: patched}, try, untold
		}
	}
	if best == nil {
		return nil, pair, []string{fmt.Sprintf("%v: %s", why, notCompared)}
	}
	if len(unchecked) > 0 {
		for i, source := range unchecked {
			unchecked[i] = strings.TrimPrefix(source, s.tree+"/")
		}
		unchecked = []string{fmt.Sprintf("no debug data of the types in %s: there, %s", semantic.Some(unchecked, 10), notCompared)}
	}
	return best, pair, unchecked
}

// locate says of refused variables where in the source they are, as far as debug
// data tells.
func (s *semantics) locate(p compiler.Pair, u compiler.UnitPair, err error) {
	e, ok := errors.AsType[*differ.RefusalError](err)
	if !ok || !slices.ContainsFunc(e.Refusals, func(r differ.Refusal) bool { return r.Source == "" && r.Line > 0 }) {
		return
	}
	in, _, _ := s.open(p)
	if in == nil {
		return
	}
	for i := range e.Refusals {
		r := &e.Refusals[i]
		program, unit := in.Patched, u.Patched
		if r.InOriginal {
			program, unit = in.Original, u.Original
		}
		if unit != nil && r.Source == "" && r.Line > 0 {
			r.Source, r.SourceLine = program.Declared(unit.Source, r.Name)
			if filepath.Base(r.Unit) == r.Source {
				r.Source = r.Unit
			}
		}
	}
}

// values notes what of unit u stays in use though it changed, and the variables
// whose initial value changed, and returns those of unit u that keep theirs.
func (s *semantics) values(u compiler.UnitPair, c *differ.ChangeSet) (kept []verify.KeptDatum, err error) {
	file := ""
	s.found = append(s.found, c.Left...)
	for _, d := range c.Data {
		if d.Align > 0 {
			s.found = append(s.found, freshNamed(kpack.VariableName(d.Name)))
		}
		if d.Verdict == differ.Changed && !d.Carried {
			s.found = append(s.found, variableNamed(stem(d.Name)))
		}
		if !d.Kept {
			continue
		}
		if file == "" {
			if file, err = fileSymbol(u.Original); err != nil {
				return nil, err
			}
		}
		kept = append(kept, verify.KeptDatum{Name: d.Name, Original: d.Original, File: file})
	}
	return kept, nil
}

// fileSymbol returns the name of the symbol of type STT_FILE that a unit's text
// asks for, before its static ones, or "".
func fileSymbol(u *compiler.Unit) (string, error) {
	text, err := os.ReadFile(u.Text)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "\t.file\t\""); ok {
			name, _, _ = strings.Cut(name, `"`)
			return name, nil
		}
	}
	return "", nil
}

// variableNamed is what a spec calls a variable.
func variableNamed(name string) string { return "variable " + name }

// freshNamed is what a spec calls a variable that begins anew with a level.
func freshNamed(name string) string { return freshWord + name }

const freshWord = "fresh variable "

// fresh are the variables of which the spec says that they begin anew.
func fresh(s specs.Spec) (names []string) {
	for _, a := range s.Allow {
		if name, ok := strings.CutPrefix(a.Change, freshWord); ok {
			names = append(names, name)
		}
	}
	return names
}

// describe adds to the variables that units of a deliverable bring what debug
// data tells of them in the patched build.
func (s *semantics) describe(units []Unit, p compiler.Pair) error {
	if !slices.ContainsFunc(units, func(u Unit) bool { return len(u.Variables) > 0 }) {
		return nil
	}
	in, _, _ := s.open(p)
	if in == nil {
		return nil
	}
	for _, u := range units {
		if u.Patched == nil || len(u.Variables) == 0 {
			continue
		}
		var symbols []string
		for _, v := range u.Variables {
			symbols = append(symbols, strings.TrimSuffix(v.Symbol, differ.Suffix))
		}
		told, err := in.Patched.Variables(u.Patched.Source, symbols)
		if err != nil {
			return err
		}
		for i, symbol := range symbols {
			if t, ok := told[symbol]; ok {
				v, layout := &u.Variables[i], specs.Digest(t.Layout)
				v.Scope, v.Type, v.Layout = t.Scope, t.Type, &layout
			}
		}
	}
	return nil
}

// keeps reports whether the spec allows that a running program keeps the value
// of a variable whose initial value changed.
func (s *semantics) keeps(name string) bool { return s.allows(variableNamed(name)) }

func (s *semantics) allows(change string) bool {
	return slices.ContainsFunc(s.spec.Allow, func(a specs.Allowance) bool { return a.Change == change })
}

// UncheckedError is a refusal of a fix of which types cannot be compared.
type UncheckedError struct{ what string }

func (e *UncheckedError) Error() string { return e.what }

// Hint says what the author can do.
func (e *UncheckedError) Hint() string {
	return fmt.Sprintf("builds with -g are made beside for this: they need a compiler that the build finds on PATH, or CC=fother-cc, and have to work with -g; or read the fix for such changes, and say so in a spec: allow: [{change: %s, reason: why}]", specs.NoDebugData)
}

// unused returns an error for each name that the spec allows and that did not
// change. Where not everything could be compared, nothing can be said.
func (s *semantics) unused() (errs []error) {
	if s.partial {
		return nil
	}
	for _, a := range s.spec.Allow {
		if !slices.Contains(s.found, a.Change) {
			errs = append(errs, &AllowError{change: a.Change, found: s.found})
		}
	}
	return errs
}

// SemanticError is a refusal of a change that the spec does not allow.
type SemanticError struct {
	Target string // name of the deliverable
	Change semantic.Change
}

func (e *SemanticError) Error() string { return e.Change.String() }

// Hint says what the author can do.
func (e *SemanticError) Hint() string {
	allow := fmt.Sprintf("if it is right nevertheless, make the patch from a spec and name it there: allow: [{change: %q, reason: why}]", e.Change.Name)
	switch e.Change.Kind {
	case semantic.Function:
		return "who is outside the patch goes on to call it in the old way: leave it as it is, and let changed functions call a new one; " + allow
	case semantic.Enumerator:
		return "what a running program keeps has the old value: add new ones behind the others; " + allow
	case semantic.Type:
		return "objects that exist keep their old layout: leave it as it is, and keep what is new in an object of its own; " + allow
	}
	return hintVariable + allow
}

const hintVariable = "a running program keeps its data: leave the variable as it is and let changed functions work on a new one; "

// AllowError means that the spec allows something that did not change.
type AllowError struct {
	change string
	found  []string
}

func (e *AllowError) Error() string {
	return fmt.Sprintf("the spec allows %q, but nothing of that name changed", e.change)
}

func (e *AllowError) ofSpec() {}

// Hint names what the author may have meant.
func (e *AllowError) Hint() string {
	best, distance := "", 1+len(e.change)/2
	for _, f := range e.found {
		if d := edits(e.change, f); d < distance {
			best, distance = f, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(e.found) == 0:
		return "remove it from the list: no type, variable or signature changed"
	}
	return "what changed: " + semantic.Some(e.found, 10)
}

// edits is the number of bytes to insert, remove or replace to make b of a.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// patchContents tells which functions of a deliverable a patch has.
type patchContents struct {
	replaced map[string]bool // by stem: all functions of that name are replaced
	changed  map[string]bool // by stem: one of them is
}

func newContents(p compiler.Pair, d *diffs, nextCall []string) *patchContents {
	c := &patchContents{map[string]bool{}, map[string]bool{}}
	for _, u := range p.Units {
		r := d.result(u)
		if r == nil || r.changes == nil {
			continue
		}
		for _, f := range r.changes.Functions {
			in := f.Verdict == differ.Changed || f.Verdict == differ.New
			names := []string{f.Name}
			if f.Original != "" && f.Original != f.Name {
				names = append(names, f.Original)
			}
			for _, n := range names {
				was, seen := c.replaced[stem(n)]
				c.replaced[stem(n)] = in && (was || !seen) && !slices.Contains(nextCall, n)
				c.changed[stem(n)] = c.changed[stem(n)] || f.Verdict == differ.Changed
			}
		}
	}
	return c
}

// stem is a function's name without what the compiler appends: parse.isra.0.
func stem(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

// replaces reports whether the patch replaces all code of a function, and no
// call of it is under way when it goes in.
func (c *patchContents) replaces(symbol string) bool { return c.replaced[stem(symbol)] }

// outside is who calls a function, or knows its address, outside the patch.
type outside struct {
	callers, holders []string
	exported         bool
}

func (o *outside) String() string {
	var parts []string
	if len(o.callers) > 0 {
		parts = append(parts, "called by "+semantic.Some(o.callers, 8)+", outside the patch")
	}
	if len(o.holders) > 0 {
		parts = append(parts, "its address is in "+semantic.Some(o.holders, 8))
	}
	if o.exported {
		parts = append(parts, "other programs and libraries can call it")
	}
	return strings.Join(parts, "; ")
}

func (o *outside) add(list *[]string, name string) {
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}

// usesOf looks for those who use functions whose signature changed and that the
// patch replaces, in the original build. The index is that of changes; nil
// stands for functions that only the patch calls.
func usesOf(p compiler.Pair, changes []semantic.Change, patch *patchContents) (map[int]*outside, error) {
	found := map[int]*outside{}
	todo := map[int]*outside{}
	for i, c := range changes {
		if c.Kind == semantic.Function && slices.ContainsFunc(c.Symbols, func(s string) bool { return patch.changed[stem(s)] }) {
			todo[i] = &outside{exported: c.Exported}
		}
	}
	if len(todo) == 0 {
		return nil, nil
	}
	for _, u := range p.Units {
		if u.Original == nil || u.Original.Arch == nil {
			continue
		}
		text, err := os.ReadFile(u.Original.Text)
		if err != nil {
			return nil, err
		}
		for i, o := range todo {
			uses, err := differ.Uses(u.Original.Source, u.Original.Arch, text, changes[i].Symbols)
			if err != nil { // the differ reads no text that is the same in both builds
				o.add(&o.callers, fmt.Sprintf("code that is not understood (%v)", err))
			}
			for _, use := range uses {
				switch {
				case use.Function && slices.Contains(changes[i].Symbols, stem(use.By)) && use.Call:
				case !use.Call:
					o.add(&o.holders, use.By)
				case !patch.replaces(use.By):
					o.add(&o.callers, use.By)
				}
			}
		}
	}
	for i, o := range todo {
		if o.exported || len(o.callers)+len(o.holders) > 0 {
			found[i] = o
		}
	}
	return found, nil
}
