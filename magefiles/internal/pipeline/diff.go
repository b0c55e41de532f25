package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ"
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
}

// Unit is one unit of a target that the fix changes.
type Unit struct {
	compiler.UnitPair
	Changes *differ.ChangeSet
	// Assembler is the command that assembles the patch, but for -o and the
	// text, if the patched build's compiler has one of its own; else nil.
	Assembler []string
}

// DiffAt compares two builds that are anywhere, and leaves the patch assembly
// in l.Diff. Errors are those of [Diff].
func DiffAt(ctx context.Context, s specs.Spec, l Layout, o Options) ([]Target, error) {
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
	pairs, err := compiler.Compare(original, patched, wanted...)
	if err != nil {
		return nil, err
	}
	for _, path := range compiler.Added(original, patched) {
		o.say("%s: only the patched build links %s: no patch is needed for it", s.Name, path)
	}
	sem, err := newSemantics(s, l)
	if err != nil {
		return nil, err
	}
	targets, err := diffPairs(ctx, l, pairs, sem)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		for _, u := range t.Unchecked {
			o.say("%s: warning: %s: %s", s.Name, t.Name, u)
		}
	}
	return targets, writeAssembly(l, targets)
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

// diffPairs compares the units of all pairs and returns the deliverables in
// which one changes. Of these the debug data is compared too.
func diffPairs(ctx context.Context, l Layout, pairs []compiler.Pair, sem *semantics) ([]Target, error) {
	d := &diffs{done: map[[2]specs.Digest]*diffResult{}}
	d.run(ctx, l.Tree, pairs)
	var targets []Target
	var reasons []error
	for _, p := range pairs {
		t := Target{Name: l.name(p.Original.Output), BuildID: p.Original.BuildID, Original: p.Original, Patched: p.Patched}
		refused := len(reasons)
		for _, u := range p.Units {
			r := d.result(u)
			if r == nil {
				continue
			}
			if r.err != nil {
				reasons = append(reasons, fmt.Errorf("%s: %w", t.Name, r.err))
			} else if r.changes.Assembly != nil {
				t.Units = append(t.Units, newUnit(u, r.changes))
			}
		}
		if len(t.Units) == 0 && len(reasons) == refused {
			continue
		}
		unchecked, err := sem.compare(ctx, t.Name, p, d)
		if err != nil {
			reasons = append(reasons, err)
		}
		t.Unchecked = unchecked
		targets = append(targets, t)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(targets) > 0 {
		reasons = append(reasons, sem.unused()...)
	}
	if len(reasons) > 0 {
		return nil, errors.Join(reasons...)
	}
	if len(targets) == 0 {
		return nil, ErrNoChange
	}
	return targets, nil
}

func newUnit(p compiler.UnitPair, changes *differ.ChangeSet) Unit {
	u := Unit{UnitPair: p, Changes: changes}
	if p.Patched != nil {
		u.Assembler = p.Patched.OwnAssembler()
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

// diffs compares pairs of units, each once however many deliverables it is in.
type diffs struct {
	done map[[2]specs.Digest]*diffResult
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
func (d *diffs) run(ctx context.Context, tree string, pairs []compiler.Pair) {
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
				r.changes, r.err = diffUnit(tree, r.pair)
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

// diffUnit compares one unit. Its name in messages is the source's, relative to
// the tree.
func diffUnit(tree string, u compiler.UnitPair) (*differ.ChangeSet, error) {
	switch {
	case u.Original == nil:
		return nil, fmt.Errorf("%s: the fix adds this unit to a target, which is not supported yet; put the new code into an existing file", u.Patched.Source)
	case u.Patched == nil:
		return nil, fmt.Errorf("%s: the fix removes this unit from a target, which is not supported yet", u.Original.Source)
	}
	original, err := os.ReadFile(u.Original.Text)
	if err != nil {
		return nil, err
	}
	patched, err := os.ReadFile(u.Patched.Text)
	if err != nil {
		return nil, err
	}
	return differ.Diff(differ.Input{Unit: strings.TrimPrefix(u.Original.Source, tree+"/"), Arch: u.Original.Arch, Original: original, Patched: patched})
}
