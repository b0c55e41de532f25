package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/specs"
)

// ErrNoChange is the class of fixes that change no code.
var ErrNoChange = errors.New("the fix changes no code")

// Options says where and with what the steps work.
type Options struct {
	// Work is the folder that holds the work folders of all specs.
	Work string
	// Shim is the path of the fother-cc binary.
	Shim string
	// Progress, if set, gets a line for each step.
	Progress io.Writer
	Logger   *slog.Logger // nil is silent
}

func (o Options) say(format string, args ...any) {
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, format+"\n", args...)
	}
}

// Folder is the work folder of one spec.
type Folder string

// FolderOf returns the work folder of s.
func FolderOf(s specs.Spec, o Options) Folder {
	return Folder(filepath.Join(o.Work, fmt.Sprintf("%s-%d", s.Name, s.Level)))
}

// Layout says where the two builds of a release are, and where what is made
// from them goes. All paths are absolute.
type Layout struct {
	Tree    string // where both builds ran
	Store   string // the capture
	Diff    string // patch assembly, for people
	Patches string // the .kpatch files
}

// Layout returns where things are in f.
func (f Folder) Layout() Layout {
	return Layout{Tree: f.Tree(), Store: f.store(), Diff: f.diff(), Patches: f.Patches()}
}

// Tree is where both builds run. It holds the tree that was built last.
func (f Folder) Tree() string { return filepath.Join(string(f), "tree") }

// Original is the tree of the original build as it was after it.
func (f Folder) Original() string { return filepath.Join(string(f), "original") }

// Patched is the tree of the patched build as it was after it.
func (f Folder) Patched() string { return filepath.Join(string(f), "patched") }

// Patches is the folder of the .kpatch files.
func (f Folder) Patches() string { return filepath.Join(string(f), "patches") }

func (f Folder) store() string { return filepath.Join(string(f), "store") }
func (f Folder) diff() string  { return filepath.Join(string(f), "diff") }
func (f Folder) log(s specs.Stage) string {
	return filepath.Join(string(f), "build-"+string(s)+".log")
}

// Build builds the tree of s as it is and with the fix, both at the same path
// and under capture. Afterwards the two trees are in Folder.Original and
// Folder.Patched. A patch that does not apply, or a command that fails, ends it
// with an error that says where; patches made earlier stay.
func Build(ctx context.Context, s specs.Spec, o Options) error {
	f := FolderOf(s, o)
	for _, dir := range []string{f.Tree(), f.Original(), f.Patched(), f.store()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return err
	}
	env, err := pinClock(s)
	if err != nil {
		return err
	}
	s.Env = env
	for _, stage := range []specs.Stage{specs.StageOriginal, specs.StagePatched} {
		if err := build(ctx, s, o, f, stage); err != nil {
			return fmt.Errorf("%s build of %s: %w", stage, s.Name, err)
		}
	}
	return nil
}

// pinClock returns the environment of both builds, with SOURCE_DATE_EPOCH set
// so that __DATE__ and __TIME__ are the same in both: to what the spec or the
// caller's environment says, else to the time of the newest file of the tree.
func pinClock(s specs.Spec) ([]string, error) {
	const name = "SOURCE_DATE_EPOCH"
	if os.Getenv(name) != "" || slices.ContainsFunc(s.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		return s.Env, nil
	}
	var newest int64
	err := filepath.WalkDir(s.Dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			newest = max(newest, info.ModTime().Unix())
		}
		return err
	})
	return append(slices.Clone(s.Env), fmt.Sprintf("%s=%d", name, newest)), err
}

func build(ctx context.Context, s specs.Spec, o Options, f Folder, stage specs.Stage) error {
	if err := source.Copy(f.Tree(), s.Dir, o.Work); err != nil {
		return err
	}
	if stage == specs.StagePatched {
		res, err := source.Apply(f.Tree(), s.Patches)
		if err != nil {
			return err
		}
		for _, moved := range res.Moved {
			o.say("%s: %s", s.Name, moved)
		}
	}
	log, err := os.Create(f.log(stage))
	if err != nil {
		return err
	}
	defer log.Close()
	run := compiler.Options{
		Dir: f.Tree(), Env: s.Env, Store: f.store(), Shim: o.Shim, Log: log, Logger: o.Logger,
	}
	if len(s.Configure) > 0 {
		run.Commands, run.Stage = s.Configure, specs.StageConfigure
		o.say("%s: configuring the %s tree", s.Name, stage)
		if err := compiler.Run(ctx, run); err != nil {
			return err
		}
	}
	run.Commands, run.Stage = s.Build, stage
	o.say("%s: building the %s tree", s.Name, stage)
	if err := compiler.Run(ctx, run); err != nil {
		return err
	}
	kept := map[specs.Stage]string{specs.StageOriginal: f.Original(), specs.StagePatched: f.Patched()}[stage]
	return os.Rename(f.Tree(), kept)
}
