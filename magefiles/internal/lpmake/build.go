package lpmake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/kpack/include"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// build makes both builds and returns the state that pack needs.
func (r *run) build(ctx context.Context) (*state, error) {
	if len(r.Patches) == 0 {
		return nil, hinted(ErrUsage, "name the source patches of the fix", "no patch is given")
	}
	last, err := r.state()
	if err == nil {
		err = r.withdraw(last)
	}
	if err != nil {
		return nil, err
	}
	fix, err := source.Check(r.Source, r.Patches)
	if err != nil {
		return nil, err
	}
	for _, moved := range fix.Moved {
		r.say("%s", moved)
	}
	whole := &whole{run: r, names: fix.Files}
	if !r.Clean {
		if err := whole.before(); err != nil {
			return nil, err
		}
	}
	s, err := r.prepare()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := r.original(ctx, slices.Contains(s.Folders, r.Original)); err != nil {
		return nil, r.explain(err)
	}
	original, err := compiler.Load(r.store(), specs.StageOriginal)
	if err != nil {
		return nil, err
	}
	installed, err := findInstalled(r.Original, original, start)
	if err != nil {
		return nil, err
	}
	s.Installed = installed.targets
	whole.of(original)
	if err := r.patched(ctx, fix.Files, whole); err != nil {
		return nil, r.explain(err)
	}
	if err := installed.compareUnseen(r.Original, r.Patched); err != nil {
		return nil, err
	}
	s.Complete = true
	return s, r.setState(s)
}

// prepare makes the folders and forgets the builds of the last run.
func (r *run) prepare() (*state, error) {
	s, err := r.state()
	if err != nil {
		return nil, err
	}
	for name, folder := range map[string]string{"LPMAKE_ORIGINAL_DIR": r.Original, "LPMAKE_PATCHED_DIR": r.Patched} {
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		ours := slices.Contains(s.Folders, folder)
		if len(entries) > 0 && !ours && folder == r.Patched {
			return nil, hinted(ErrUsage, "name an empty folder, or one that is not there", "%s=%s: it is not empty", name, folder)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		if !ours && len(entries) == 0 {
			s.Folders = append(s.Folders, folder)
		}
	}
	s.Complete, s.Installed, s.Sources = false, nil, nil
	for _, p := range r.Patches {
		s.Sources = append(s.Sources, filepath.Base(p))
	}
	if err := r.keepFix(s); err != nil {
		return nil, err
	}
	return s, r.setState(s)
}

// keepFix copies the source patches, so that a later run without them tells the
// same reasons.
func (r *run) keepFix(s *state) error {
	kept := r.fix(s)
	if err := os.RemoveAll(r.fixDir()); err != nil {
		return err
	}
	if err := os.MkdirAll(r.fixDir(), 0o755); err != nil {
		return err
	}
	for i, p := range r.Patches {
		data, err := os.ReadFile(p)
		if err == nil {
			err = os.WriteFile(kept[i], data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *run) fixDir() string { return filepath.Join(r.Work, "fix") }

// fix returns the copies of the source patches, in order.
func (r *run) fix(s *state) []string {
	var paths []string
	for i, name := range s.Sources {
		paths = append(paths, filepath.Join(r.fixDir(), fmt.Sprintf("%03d-%s", i, name)))
	}
	return paths
}

// makeCommand returns the command that makes a goal.
func (r *run) makeCommand(goal ...string) string {
	words := []string{r.Make}
	if info, err := os.Stat(filepath.Join(r.Dir, "lpmakefile")); err == nil && info.Mode().IsRegular() {
		words = append(words, "-f", "lpmakefile")
	}
	return strings.Join(append(words, goal...), " ")
}

// install returns the command that installs below Original, or with -n says
// how.
func (r *run) install(options ...string) string {
	// make expands the value, and before it the shell.
	value := strings.ReplaceAll(r.DestDir+"="+r.Original, "$", "$$")
	return r.makeCommand(append(options, "install", "'"+strings.ReplaceAll(value, "'", `'\''`)+"'")...)
}

// capture runs make under capture.
func (r *run) capture(ctx context.Context, stage specs.Stage, base specs.Stage, commands []string, before func(string) error) error {
	log, err := os.Create(filepath.Join(r.Work, "build-"+string(stage)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	o := r.runner(stage, log)
	o.Commands, o.Base, o.Before = commands, base, before
	if stage == specs.StagePatched {
		if o.Env, err = include.Environ(o.Env, filepath.Join(r.Work, "include")); err != nil {
			return err
		}
	}
	if err := compiler.Run(ctx, o); err != nil {
		return fmt.Errorf("%s build: %w", stage, err)
	}
	return nil
}

func (r *run) runner(stage specs.Stage, log io.Writer) compiler.Options {
	if r.Output != nil && log != nil {
		log = io.MultiWriter(log, r.Output)
	}
	env := append(slices.Clone(r.Env), "MAKEFLAGS=", "MFLAGS=", "MAKELEVEL=",
		"LPMAKE_ORIGINAL_DIR="+r.Original, "LPMAKE_PATCHED_DIR="+r.Patched, "LPMAKE_PATCHROOT="+r.Patchroot)
	return compiler.Options{
		Dir: r.Dir, Env: append(env, r.clock()...), Store: r.store(), Stage: stage, Shim: r.Shim, Log: log, Logger: r.Logger,
		Folders: []string{r.Original}, Skip: []string{r.Work, r.Patched, r.Original + ".fother-original"},
	}
}

// clock pins what __DATE__ and __TIME__ say, so that they are the same in all
// builds of this tree: to the time of the first.
func (r *run) clock() []string {
	const name = "SOURCE_DATE_EPOCH"
	if os.Getenv(name) != "" || slices.ContainsFunc(r.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return nil
	}
	path := filepath.Join(r.Work, "epoch")
	data, err := os.ReadFile(path)
	if err != nil {
		data = fmt.Appendf(nil, "%d", time.Now().Unix())
		if writeSynced(path, data) != nil {
			return nil
		}
	}
	return []string{name + "=" + string(data)}
}

// original builds and installs the tree as it is. Ours says that nothing but
// this program installs there.
func (r *run) original(ctx context.Context, ours bool) (err error) {
	commands := []string{r.makeCommand(), r.install()}
	base := specs.StageOriginal
	clean := r.Clean
	if _, err := os.Lstat(r.dirtyMark()); err == nil && !clean {
		r.say("an interrupted run with --clean left what it had built: make clean")
		clean = true
	}
	if clean {
		base = ""
		if err := r.clean(ctx); err != nil {
			return err
		}
	}
	var s *stash
	err = r.capture(ctx, specs.StageOriginal, base, commands, func(command string) (err error) {
		if command == commands[0] {
			r.say("building the original code")
			return nil
		}
		if err := r.checkInstall(ctx); err != nil {
			return err
		}
		r.say("installing the original into %s", r.Original)
		// Into an empty folder: a program that runs cannot be written to. Of
		// what others put there nothing is moved.
		if err = os.MkdirAll(r.Original, 0o755); err == nil && ours {
			s, err = aside(r.stashNote(), r.Original)
		}
		return err
	})
	switch {
	case s == nil:
		return err
	case err != nil:
		return errors.Join(err, s.back())
	}
	return s.drop()
}

// clean runs make clean, which must not reach what is installed.
func (r *run) clean(ctx context.Context) error {
	r.say("cleaning")
	s, err := aside(r.stashNote(), r.Original)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(r.Work, "clean.log"))
	if err == nil {
		defer log.Close()
		o := r.runner(specs.StageConfigure, log)
		o.Commands = []string{r.makeCommand("clean")}
		err = compiler.Run(ctx, o)
	}
	if err = errors.Join(err, s.back()); err != nil {
		return err
	}
	return remove(r.dirtyMark())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// patched builds and installs the tree with the fix. Whatever happens, the
// sources come back.
func (r *run) patched(ctx context.Context, names []string, w *whole) (err error) {
	if r.Clean {
		if err := r.clean(ctx); err != nil {
			return err
		}
		if err := os.WriteFile(r.dirtyMark(), nil, 0o644); err != nil {
			return err
		}
	}
	kept, err := keep(r.kept(), r.Source, names, func(dir string) error {
		_, err := source.Apply(dir, r.Patches)
		return err
	})
	if err != nil {
		return err
	}
	err = r.patchedBuild(ctx, kept, w)
	if e := kept.restore(); e != nil {
		return errors.Join(err, &RestoreError{e})
	}
	if err == nil && r.Clean {
		// make may not know what was built from files that others include.
		err = r.clean(ctx)
	}
	return err
}

// patchedBuild applies the fix, builds and installs. The original
// installation stands aside for the other.
func (r *run) patchedBuild(ctx context.Context, kept *sources, w *whole) (err error) {
	if err := kept.apply(); err != nil {
		return err
	}
	for _, p := range r.Patches {
		r.say("applied %s", p)
	}
	commands := []string{r.makeCommand(), r.install()}
	base := specs.StageOriginal
	if r.Clean {
		base = ""
	}
	var s *stash
	defer func() {
		if s != nil {
			err = errors.Join(err, s.back())
		}
	}()
	err = r.capture(ctx, specs.StagePatched, base, commands, func(command string) (err error) {
		if command == commands[0] {
			r.say("building the patched code")
			return nil
		}
		r.say("installing the patched code into %s", r.Patched)
		s, err = aside(r.stashNote(), r.Original)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.after(); err != nil {
		return err
	}
	return moveFolder(r.Patched, r.Original)
}

// explain adds what helps in a tree that was built before without capture, and
// where a tool is missing.
func (r *run) explain(err error) error {
	if errors.Is(err, compiler.ErrNothingCaptured) && !r.Clean {
		return hinted(ErrNeedsClean, hintClean, "%s: make built nothing: the tree was built before, without capture", r.Dir)
	}
	var failed *compiler.CommandError
	if errors.As(err, &failed) {
		if missing := tools.MissingIn(failed.Tail); missing != nil {
			return fmt.Errorf("%w: %w", missing, err)
		}
	}
	return err
}
