package pipeline

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/differ/semantic"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// debugArgs have the compilers write debug data that package semantic reads.
// Code does not depend on it.
var debugArgs = []string{"-g2", "-gno-split-dwarf", "-fno-debug-types-section"}

// debugBuild makes both builds once more, with debug data, if that of a
// deliverable that the fix changes does not tell types. They run at the same
// path and differ from the first ones in nothing else; nothing but the
// comparison of types looks at them. A build that is not possible so is no
// error: what cannot be compared is told later.
func (r *run) debugBuild(ctx context.Context, dir string, env []string) error {
	fresh := r.folder.fresh()
	pairs, err := loadPairs(fresh.store())
	if err != nil || !slices.ContainsFunc(pairs, func(p compiler.Pair) bool { return p.Changed() && !tellsTypes(p) }) {
		return err
	}
	for _, stage := range stages {
		b := stageBuild{stage: stage, store: fresh.debug(), log: r.folder.debugLog(stage), args: debugArgs, kind: " with debug data"}
		err := r.buildStage(ctx, dir, env, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.o.say("%s: the builds with debug data fail, so types are not compared where there is none: %v", r.spec.Name, err)
			err = os.RemoveAll(fresh.debug())
		}
		for _, gone := range []string{r.folder.Tree(), r.folder.destdir()} {
			err = errors.Join(err, os.RemoveAll(gone))
		}
		if _, none := os.Lstat(fresh.debug()); err != nil || none != nil {
			return err
		}
	}
	return nil
}

// loadPairs pairs the deliverables of two captured builds, as far as they can
// be. What stands in the way of a patch is told by the comparison.
func loadPairs(store string) ([]compiler.Pair, error) {
	original, err := compiler.Load(store, specs.StageOriginal)
	if err != nil {
		return nil, err
	}
	patched, err := compiler.Load(store, specs.StagePatched)
	if err != nil {
		return nil, err
	}
	pairs, _ := compiler.Compare(original, patched)
	return pairs, nil
}

// tellsTypes reports whether the debug data of a pair of deliverables tells the
// types of all units that differ.
func tellsTypes(p compiler.Pair) bool {
	if !hasTypes(p) {
		return true
	}
	_, _, untold, err := openPrograms(p)
	return err == nil && len(untold) == 0
}

// hasTypes reports whether a pair of deliverables differs in units that have
// types: all but those that were written in assembly.
func hasTypes(p compiler.Pair) bool {
	return slices.ContainsFunc(p.Units, func(u compiler.UnitPair) bool { return !u.Same() && typed(u) })
}

func typed(u compiler.UnitPair) bool {
	switch filepath.Ext(sourceOf(u)) {
	case ".s", ".S", ".sx":
		return false
	}
	return true
}

// openPrograms opens the debug data of both builds of a deliverable. Untold are
// the source files of the units that differ and of which it does not tell the
// types. The error is semantic.ErrNoData or semantic.ErrForm for data that
// tells none.
func openPrograms(p compiler.Pair) (original, patched *semantic.Program, untold []string, err error) {
	lines := map[string]bool{}
	var programs []*semantic.Program
	for _, l := range []*compiler.Link{p.Original, p.Patched} {
		f, err := elfobj.Open(l.File)
		if err != nil {
			return nil, nil, nil, err
		}
		program, err := semantic.Open(f)
		if err != nil {
			return nil, nil, nil, err
		}
		for _, source := range program.LinesOnly() {
			lines[source] = true
		}
		programs = append(programs, program)
	}
	for _, u := range p.Units {
		if u.Original == nil || u.Patched == nil || u.Same() || !typed(u) {
			continue
		}
		told, err := hasDebugData(u)
		if err != nil {
			return nil, nil, nil, err
		}
		if !told || lines[u.Original.Source] {
			untold = append(untold, u.Original.Source)
		}
	}
	return programs[0], programs[1], untold, nil
}

// hasDebugData reports whether the texts of a unit have debug data of both
// builds.
func hasDebugData(p compiler.UnitPair) (bool, error) {
	for _, u := range []*compiler.Unit{p.Original, p.Patched} {
		text, err := os.ReadFile(u.Text)
		if err != nil {
			return false, err
		}
		if !bytes.Contains(text, []byte(".debug_info")) && !bytes.Contains(text, []byte(".debuglto_.debug_info")) {
			return false, nil
		}
	}
	return true, nil
}

// debugPairs returns the deliverables of the builds with debug data by their
// path, none if there are no such builds.
func debugPairs(store string) (map[string]compiler.Pair, error) {
	if store == "" {
		return nil, nil
	}
	if _, err := os.Lstat(store); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	pairs, err := loadPairs(store)
	if err != nil {
		return nil, err
	}
	byPath := map[string]compiler.Pair{}
	for _, p := range pairs {
		byPath[p.Original.Output] = p
	}
	return byPath, nil
}
