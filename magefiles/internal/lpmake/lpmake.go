package lpmake

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs"
)

// Options says what to build and where things go. Paths are absolute, or
// relative to Dir.
type Options struct {
	Dir     string   // where make runs
	Source  string   // the tree that the patches are for; empty for Dir
	Patches []string // in order
	Clean   bool     // make clean before each build
	// DestDir is the variable by which make install is told where to; empty for
	// DESTDIR.
	DestDir string
	// Original and Patched are where the two builds are installed, Patchroot
	// where the patches go. Empty ones are lpmake, .lpmaketmp/patched and
	// patchroot.
	Original, Patched, Patchroot string
	// Work holds what this package keeps between runs; empty for .fother/make.
	Work  string
	Make  string // the command; empty for make
	Shim  string // path of the program fother-cc
	Env   []string
	Level specs.Level // 0 for 1

	Progress io.Writer // a line for each step; nil for none
	Output   io.Writer // what the builds print; nil for the logs in Work only
	Logger   *slog.Logger
}

// Patch is one patch that was made.
type Patch struct {
	File   string // of the patch
	Target string // where the program or library was installed
}

// run is one run.
type run struct {
	Options
	lock *os.File
}

// Make builds both trees and makes the patches. Those of an earlier run are
// removed before, so that nobody takes them for its own if it fails. Errors are of the classes of this package,
// [compiler.CommandError], those of package source and what
// [pipeline.DiffAt] and [pipeline.PackAt] return.
func Make(ctx context.Context, o Options) ([]Patch, error) {
	r, err := begin(o)
	if err != nil {
		return nil, err
	}
	defer r.lock.Close()
	s, err := r.build(ctx)
	if err != nil {
		return nil, err
	}
	return r.pack(ctx, s)
}

// Update makes the patches from the builds of the last run.
func Update(ctx context.Context, o Options) ([]Patch, error) {
	r, err := begin(o)
	if err != nil {
		return nil, err
	}
	defer r.lock.Close()
	s, err := r.state()
	if err != nil {
		return nil, err
	}
	if !s.Complete {
		return nil, hinted(ErrNotBuilt, "run it without --update first", "%s: %v", r.Dir, ErrNotBuilt)
	}
	if err := r.withdraw(s); err != nil {
		return nil, err
	}
	return r.pack(ctx, s)
}

// begin checks the options, keeps other runs away and puts right what an
// interrupted one left.
func begin(o Options) (*run, error) {
	r := &run{Options: o}
	if err := r.defaults(); err != nil {
		return nil, err
	}
	if err := r.checkFolders(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Work, 0o755); err != nil {
		return nil, err
	}
	var err error
	if r.lock, err = lock(r.Work); err != nil {
		return nil, err
	}
	if err := r.recover(); err != nil {
		r.lock.Close()
		return nil, err
	}
	return r, nil
}

// defaults fills in what is empty and makes paths absolute.
func (r *run) defaults() error {
	dir, err := filepath.Abs(r.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	r.Dir = dir
	for path, preset := range map[*string]string{
		&r.Source: ".", &r.Original: "lpmake", &r.Patched: ".lpmaketmp/patched", &r.Patchroot: "patchroot", &r.Work: ".fother/make",
	} {
		if *path == "" {
			*path = preset
		}
		*path = r.abs(*path)
	}
	if r.Source, err = filepath.EvalSymlinks(r.Source); err != nil {
		return hinted(ErrUsage, "--srcdir names the folder that the patches are for", "%v", err)
	}
	if r.DestDir == "" {
		r.DestDir = "DESTDIR"
	}
	if r.Make == "" {
		r.Make = "make"
	}
	r.Level = max(r.Level, 1)
	for i, p := range r.Patches {
		r.Patches[i] = r.abs(p)
	}
	return nil
}

func (r *run) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.Dir, path)
}

// inside reports whether path is folder or in it.
func inside(path, folder string) bool {
	return strings.HasPrefix(path+"/", strings.TrimSuffix(folder, "/")+"/")
}

// checkFolders refuses folders that are moved or removed in a run and hold
// what must stay.
func (r *run) checkFolders() error {
	for name, folder := range map[string]string{"LPMAKE_ORIGINAL_DIR": r.Original, "LPMAKE_PATCHED_DIR": r.Patched} {
		for _, keep := range append([]string{r.Dir, r.Source, r.Work}, r.Patches...) {
			if inside(keep, folder) {
				return hinted(ErrUsage, "name an empty folder, or one that is not there", "%s=%s: %s is in it", name, folder, keep)
			}
		}
	}
	if inside(r.Original, r.Patched) || inside(r.Patched, r.Original) {
		return hinted(ErrUsage, "name two folders", "LPMAKE_ORIGINAL_DIR=%s and LPMAKE_PATCHED_DIR=%s are one", r.Original, r.Patched)
	}
	if strings.Contains(r.Work, ":") {
		return hinted(ErrUsage, "set FOTHER_WORK to a folder without one", "%s: a colon in its name separates folders in COMPILER_PATH", r.Work)
	}
	return nil
}

// lock keeps other runs away from a work folder until the file that it returns
// is closed.
func lock(work string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(work, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, hinted(err, "wait until it has ended", "another run works in %s", work)
	}
	return f, nil
}

// Files of the work folder.
func (r *run) store() string     { return filepath.Join(r.Work, "store") }
func (r *run) kept() string      { return filepath.Join(r.Work, "sources") }
func (r *run) stashNote() string { return filepath.Join(r.Work, "stash.json") }
func (r *run) stateFile() string { return filepath.Join(r.Work, "state.json") }

// dirtyMark is there while make may take what was built from patched files for
// up to date.
func (r *run) dirtyMark() string { return filepath.Join(r.Work, "dirty") }

// recover puts right what an interrupted run left, unless a file that it left
// patched was edited since.
func (r *run) recover() error {
	s, err := unfinished(r.kept())
	if err == nil && s != nil {
		err = cmp.Or(r.elsewhere(s.journal.Tree, r.Source), s.check())
	}
	if err != nil {
		return err
	}
	left, err := leftAside(r.stashNote())
	if err == nil && left != nil {
		err = r.elsewhere(left.Original, r.Original)
	}
	if err == nil && left != nil {
		r.say("putting %s back, where an interrupted run moved it from", left.Original)
		err = left.back()
	}
	if err != nil || s == nil {
		return err
	}
	r.say("restoring %s that an interrupted run left patched", counted(len(s.journal.Files)))
	for _, name := range s.removed() {
		r.say("%s is not there: its original is put there", name)
	}
	return s.restore()
}

// elsewhere refuses what an interrupted run left for another folder: this work
// folder is the copy of one, and that tree is not this run's to change.
func (r *run) elsewhere(noted, own string) error {
	if noted == own {
		return nil
	}
	return hinted(ErrUsage, "put the sources right by hand, then remove "+r.Work,
		"an interrupted run left %s for %s, and this is not it but %s", r.Work, noted, own)
}

// state is what is known of the last run.
type state struct {
	Complete  bool     `json:"complete"` // there are two builds to compare
	Installed []target `json:"installed"`
	Sources   []string `json:"sources"` // the names of the fix's patches
	// Folders were made by this program, which may remove them.
	Folders []string `json:"folders"`
	// Made are the paths of the patches.
	Made []string `json:"made"`
}

// target is a program or library that was installed.
type target struct {
	Path    string        `json:"path"`   // where it is
	Output  string        `json:"output"` // where it was linked
	BuildID specs.BuildID `json:"build_id"`
}

func (r *run) state() (*state, error) {
	s := new(state)
	data, err := os.ReadFile(r.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.stateFile(), err)
	}
	return s, nil
}

func (r *run) setState(s *state) error {
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return writeSynced(r.stateFile(), data)
}

func (r *run) say(format string, args ...any) {
	if r.Progress != nil {
		fmt.Fprintf(r.Progress, format+"\n", args...)
	}
}

func (r *run) pipeline() (pipeline.Layout, pipeline.Options) {
	return pipeline.Layout{
		Tree: r.Dir, Source: r.Source, SourceAt: r.Source, Store: r.store(), Diff: filepath.Join(r.Work, "diff"), Patches: filepath.Join(r.Work, "patches"),
	}, pipeline.Options{Work: r.Work, Shim: r.Shim, Unchecked: true, Logger: r.Logger}
}
