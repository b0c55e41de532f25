package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/differ/asm"
	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Target is one deliverable that the fix changes.
type Target struct {
	// Name is its path in the tree or, if it was linked anew when it was
	// installed, below DESTDIR.
	Name              string
	BuildID           specs.BuildID
	Original, Patched *compiler.Link
	Units             []Unit
	// Unchecked says what could not be compared for lack of debug data.
	Unchecked []string
	// Kept are the variables whose initial value changed and of which the spec
	// says that a running program may keep its own.
	Kept []verify.KeptDatum
	// Warnings are what else its author should know.
	Warnings []string
	// Tools are the paths of the assemblers and linkers that made it, sorted.
	Tools []string

	partial bool   // some of its units are refused
	file    []byte // the .kpatch file, if it was made
}

// Unit is one unit of a target that the fix changes.
type Unit struct {
	compiler.UnitPair
	Changes *differ.ChangeSet
	// Assembler is the command that assembles the patch, but for -o and the
	// text, if the patched build's compiler has one of its own; else nil.
	Assembler []string
	// Variables are those that the patch brings.
	Variables []kpack.BuildVariable
}

// DiffAt compares two builds that are anywhere, and leaves the patch assembly
// in l.Diff. Errors are those of [Diff].
func DiffAt(ctx context.Context, s specs.Spec, l Layout, o Options) ([]Target, error) {
	c, err := compareBuilds(ctx, s, l, o)
	if err != nil {
		return nil, err
	}
	return c.targets, c.err()
}

// comparison is what two builds differ in.
type comparison struct {
	targets []Target // that can be patched
	idle    []Target // that differ, and not by their units
	report  *Report
	reasons []error // why some cannot
}

// refuse notes why a target cannot be patched, or all of them if it is "".
// Every check of a fix comes here with what it refuses, as a
// [*differ.RefusalError] that names units or targets: all is reported at once.
func (c *comparison) refuse(target string, err error) {
	c.report.refuse(target, err)
	if target != "" {
		err = &targetError{target, err}
	}
	c.reasons = append(c.reasons, err)
}

// err returns what stands in the way of a patch.
func (c *comparison) err() error {
	if err := refusedError(c.reasons); err != nil {
		return err
	}
	if len(c.targets) == 0 {
		return ErrNoChange
	}
	return nil
}

// compareBuilds compares the two builds that l names, and leaves the patch
// assembly in l.Diff unless something is refused. An error means that there is
// nothing to compare.
func compareBuilds(ctx context.Context, s specs.Spec, l Layout, o Options) (*comparison, error) {
	original, err := compiler.Load(l.Store, specs.StageOriginal)
	if err != nil {
		return nil, err
	}
	patched, err := compiler.Load(l.Store, specs.StagePatched)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, t := range s.Targets {
		if !filepath.IsAbs(t) {
			t = filepath.Join(l.Tree, t)
		}
		wanted = append(wanted, t)
	}
	c := &comparison{report: newReport(s)}
	defer c.report.finish(l)
	pairs, err := compiler.Compare(original, patched, wanted...)
	if err != nil {
		for _, e := range joined(err) {
			c.refuse("", e)
		}
		return c, nil
	}
	for _, path := range compiler.Added(original, patched) {
		o.say("%s: only the patched build links %s: no patch is needed for it", s.Name, path)
	}
	sem, err := newSemantics(s, l, o.Unchecked)
	if err != nil {
		return nil, err
	}
	if err := c.compare(ctx, l, fixOf(s, l), pairs, sem); err != nil {
		return nil, err
	}
	if err := c.pack(ctx, s, l.Store); err != nil {
		return nil, err
	}
	if len(c.reasons) > 0 {
		return c, nil
	}
	c.busy(s)
	for _, t := range c.report.Targets {
		for _, w := range slices.Concat(t.Unchecked, t.Warnings) {
			o.say("%s: warning: %s: %s", s.Name, t.Name, w)
		}
	}
	if len(c.targets) == 0 {
		c.report.Result = Unchanged
	}
	return c, writeAssembly(l, c.targets)
}

// warnMain is what is said of a patch that changes main.
const warnMain = "main changes, or what is inlined into it, and it is on the stack as long as the program runs: a process takes the patch only if the spec allows calls that are under way to end in the old code, by consistency: {next-call: [main], reason: why}"

// busy warns of targets whose main changes under strict consistency.
func (c *comparison) busy(s specs.Spec) {
	for k := range c.targets {
		t := &c.targets[k]
		changes := slices.ContainsFunc(t.Units, func(u Unit) bool {
			return slices.ContainsFunc(u.Changes.Functions, func(f differ.Function) bool { return f.Verdict == differ.Changed && f.Original == "main" })
		})
		i := slices.IndexFunc(c.report.Targets, func(r ReportTarget) bool { return r.Name == t.Name })
		if changes && i >= 0 && !slices.Contains(s.Consistency.NextCall, "main") {
			t.Warnings = append(t.Warnings, warnMain)
			c.report.Targets[i].Warnings = t.Warnings
		}
	}
}

// name returns what a deliverable is called.
func (l Layout) name(output string) string {
	for _, dir := range []string{l.Tree, l.Installed} {
		if name, ok := strings.CutPrefix(output, dir+"/"); ok && dir != "" {
			return name
		}
	}
	return output
}

// compare compares the units of all pairs.
func (c *comparison) compare(ctx context.Context, l Layout, fix *differ.Fix, pairs []compiler.Pair, sem *semantics) error {
	copies, err := newCopies(pairs)
	if err != nil {
		return err
	}
	d := &diffs{done: map[[2]specs.Digest]*diffResult{}, layout: l, fix: fix, sem: sem, copies: copies}
	if d.run(ctx, pairs); ctx.Err() != nil {
		return ctx.Err()
	}
	for _, p := range pairs {
		t := Target{Name: l.name(p.Original.Output), BuildID: p.Original.BuildID, Original: p.Original, Patched: p.Patched}
		compared, refused := false, len(c.reasons)
		for _, u := range p.Units {
			r := d.result(u)
			if r == nil {
				c.report.EqualUnits = append(c.report.EqualUnits, l.unitName(u))
				continue
			}
			compared = true
			assembly := ""
			if r.err != nil {
				t.partial = true
				sem.locate(p, u, r.err)
				c.refuse(t.Name, r.err)
			} else if r.changes.Assembly != nil {
				t.Units = append(t.Units, newUnit(u, r.changes))
				assembly = t.assembly(l, len(t.Units)-1)
			}
			if r.changes != nil {
				kept, err := sem.values(u, r.changes)
				if err != nil {
					return err
				}
				t.Kept = append(t.Kept, kept...)
				t.Warnings = append(t.Warnings, r.changes.Warnings...)
				c.report.add(t.Name, r.changes, assembly)
			}
		}
		if len(t.Units) > 0 || len(c.reasons) > refused {
			if err := c.semantics(ctx, &t, p, d, sem); err != nil {
				return err
			}
		}
		if compared {
			c.report.Targets = append(c.report.Targets, ReportTarget{Name: t.Name, BuildID: t.BuildID, Unchecked: t.Unchecked, Warnings: t.Warnings})
		}
		switch {
		case len(t.Units) > 0:
			c.targets = append(c.targets, t)
		case len(c.reasons) == refused && p.Changed():
			c.idle = append(c.idle, t)
		}
	}
	if len(c.targets) > 0 || len(c.reasons) > 0 {
		for _, err := range sem.unused() {
			c.refuse("", err)
		}
	}
	return nil
}

// semantics compares the debug data of a target that gets a patch.
func (c *comparison) semantics(ctx context.Context, t *Target, p compiler.Pair, d *diffs, sem *semantics) error {
	unchecked, refused, err := sem.compare(ctx, t.Name, p, d)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		refused = append(refused, fmt.Errorf("debug data: %w", err))
	}
	for _, what := range unchecked {
		if !sem.lenient && !sem.allows(specs.NoDebugData) {
			refused = append(refused, &UncheckedError{what})
		}
	}
	for _, e := range refused {
		c.refuse(t.Name, e)
	}
	t.Unchecked = unchecked
	return sem.describe(t.Units, p)
}

// unitName returns what a unit is called: its source, relative to the tree.
func (l Layout) unitName(u compiler.UnitPair) string {
	source := sourceOf(u)
	if rel, ok := strings.CutPrefix(source, l.Tree+"/"); ok {
		return rel
	}
	return filepath.Base(source)
}

func newUnit(p compiler.UnitPair, changes *differ.ChangeSet) Unit {
	u := Unit{UnitPair: p, Changes: changes}
	if p.Patched != nil {
		u.Assembler = p.Patched.OwnAssembler()
	}
	for _, d := range changes.Data {
		if d.Align > 0 {
			u.Variables = append(u.Variables, kpack.BuildVariable{Symbol: d.Name + differ.Suffix, Align: d.Align})
		}
	}
	return u
}

// writeAssembly leaves the patch assembly in the work folder, for people.
func writeAssembly(l Layout, targets []Target) error {
	if err := os.RemoveAll(l.Diff); err != nil {
		return err
	}
	for _, t := range targets {
		dir := filepath.Join(l.Diff, string(t.BuildID))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for i, u := range t.Units {
			if err := os.WriteFile(filepath.Join(dir, assemblyName(i, u)), u.Changes.Assembly, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func assemblyName(i int, u Unit) string {
	return fmt.Sprintf("%03d-%s.s", i, strings.ReplaceAll(filepath.Base(u.Changes.Unit), " ", "_"))
}

// assembly returns the path of unit i's patch assembly, relative to the folder
// that l.Diff is in.
func (t Target) assembly(l Layout, i int) string {
	return filepath.Join(filepath.Base(l.Diff), string(t.BuildID), assemblyName(i, t.Units[i]))
}

// diffs compares pairs of units, each once however many deliverables it is in.
type diffs struct {
	done   map[[2]specs.Digest]*diffResult
	layout Layout
	fix    *differ.Fix
	sem    *semantics
	copies map[string]bool // of newCopies
}

type diffResult struct {
	pair    compiler.UnitPair
	changes *differ.ChangeSet
	err     error
}

// digests returns the key of a pair. A side that is missing has the digest of
// no text at all.
func digests(u compiler.UnitPair) (key [2]specs.Digest) {
	if u.Original != nil {
		key[0] = u.Original.TextDigest
	}
	if u.Patched != nil {
		key[1] = u.Patched.TextDigest
	}
	return key
}

// result returns what came of a pair, nil if its text is equal.
func (d *diffs) result(u compiler.UnitPair) *diffResult { return d.done[digests(u)] }

// run compares all units whose text differs, on all processors.
func (d *diffs) run(ctx context.Context, pairs []compiler.Pair) {
	var todo []*diffResult
	for _, p := range pairs {
		for _, u := range p.Units {
			key := digests(u)
			if key[0] != key[1] && d.done[key] == nil {
				d.done[key] = &diffResult{pair: u}
				todo = append(todo, d.done[key])
			}
		}
	}
	work := make(chan *diffResult)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		wg.Go(func() {
			for r := range work {
				r.changes, r.err = d.diffUnit(d.layout.unitName(r.pair), r.pair)
			}
		})
	}
	for _, r := range todo {
		if ctx.Err() != nil {
			r.err = ctx.Err()
			continue
		}
		work <- r
	}
	close(work)
	wg.Wait()
}

// diffUnit compares one unit, which is called name in messages. All of a unit
// that the fix adds is new, all of one that it takes away is removed.
func (d *diffs) diffUnit(name string, u compiler.UnitPair) (*differ.ChangeSet, error) {
	in := differ.Input{Unit: name, Keeps: d.sem.keeps, Leaves: d.sem.allows, Elsewhere: func(name string) bool { return d.copies[name] }}
	var original, patched, dir string // of the texts, and the folder of the compiler
	var err error
	if u.Patched != nil {
		in.Arch, dir, patched = u.Patched.Arch, u.Patched.Dir, u.Patched.Text
		if in.Patched, err = os.ReadFile(patched); err != nil {
			return nil, err
		}
	}
	if u.Original != nil {
		in.Arch, dir, original = u.Original.Arch, u.Original.Dir, u.Original.Text
		if in.Original, err = os.ReadFile(original); err != nil {
			return nil, err
		}
	}
	if d.fix != nil {
		of := *d.fix
		of.Dir = dir
		in.Fix = &of
	}
	changes, err := differ.Diff(in)
	return changes, withTexts(err, original, patched)
}

// withTexts adds the paths of a unit's assembly texts to what is said of them.
func withTexts(err error, original, patched string) error {
	if e, ok := errors.AsType[*differ.RefusalError](err); ok {
		for i := range e.Refusals {
			e.Refusals[i].Text = patched
			if e.Refusals[i].InOriginal {
				e.Refusals[i].Text = original
			}
		}
	}
	if e, ok := errors.AsType[*asm.SyntaxError](err); ok {
		var first bool
		if e.File, first = strings.CutSuffix(e.File, " (original)"); first {
			e.Path = original
		} else {
			e.File, e.Path = strings.TrimSuffix(e.File, " (patched)"), patched
		}
	}
	return err
}

// sourceOf returns the path of a unit's source.
func sourceOf(u compiler.UnitPair) string {
	if u.Original != nil {
		return u.Original.Source
	}
	return u.Patched.Source
}
