// Package patch has the Mage targets that make live patches. A project imports
// them into its own magefile:
//
//	import (
//		//mage:import
//		_ "github.com/fother/fother/magefiles/patch"
//	)
//
// Each target takes the path of a spec. The work folder is .fother in the
// current folder; FOTHER_WORK names another.
package patch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

// Patch is the namespace of the targets.
type Patch mg.Namespace

// All makes the live patches that a spec describes: build, diff and pack.
func (Patch) All(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		_, err := pipeline.Make(ctx, s, o)
		return err
	})
}

// Build builds the original and the patched tree of a spec under capture.
func (Patch) Build(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		return pipeline.Build(ctx, s, o)
	})
}

// Diff shows which functions of the two builds differ, and why.
func (Patch) Diff(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		targets, err := compare(ctx, spec, s, o)
		if err != nil {
			return err
		}
		pipeline.Report(os.Stdout, targets)
		return nil
	})
}

// Pack writes the .kpatch files of the two builds.
func (Patch) Pack(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		targets, err := compare(ctx, spec, s, o)
		if err != nil {
			return err
		}
		_, err = pipeline.Pack(ctx, s, o, targets)
		return err
	})
}

// compare compares the two builds, which must be there.
func compare(ctx context.Context, spec string, s specs.Spec, o pipeline.Options) ([]pipeline.Target, error) {
	if _, err := os.Stat(pipeline.FolderOf(s, o).Patched()); errors.Is(err, fs.ErrNotExist) {
		return nil, &notBuiltError{name: s.Name, spec: spec}
	}
	return pipeline.Diff(ctx, s, o)
}

// notBuiltError means that there are no two builds to compare.
type notBuiltError struct{ name, spec string }

func (e *notBuiltError) Error() string { return e.name + " is not built yet" }
func (e *notBuiltError) Hint() string  { return "build it first: go tool mage patch:build " + e.spec }

// specError means that the spec cannot be read or is wrong.
type specError struct {
	error
	path string
}

func (e *specError) Unwrap() error { return e.error }

// Hint helps who names the folder of a spec instead of the spec.
func (e *specError) Hint() string {
	inside := filepath.Join(e.path, "spec.yaml")
	if _, err := os.Stat(inside); err != nil {
		return ""
	}
	return "name the file: " + inside
}

// Exit statuses of the targets, those of the fother command.
const (
	exitError   = 1
	exitUsage   = 2
	exitRefused = 4
)

// with reads the spec and finds the tools, then calls do.
func with(ctx context.Context, spec string, do func(specs.Spec, pipeline.Options) error) error {
	err := run(ctx, spec, do)
	var (
		bad     *specError
		refused *differ.RefusalError
	)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		// What was stopped in the middle has its own errors, which mislead.
		return mg.Fatal(exitError, "interrupted")
	case errors.As(err, &bad):
		return mg.Fatal(exitUsage, pipeline.Explain(err))
	case errors.As(err, &refused):
		return mg.Fatal(exitRefused, pipeline.Explain(err))
	}
	return mg.Fatal(exitError, pipeline.Explain(err))
}

func run(ctx context.Context, spec string, do func(specs.Spec, pipeline.Options) error) error {
	s, err := specfile.Read(spec)
	if err != nil {
		return &specError{err, spec}
	}
	if err := tools.Check("gcc", "as", "ld"); err != nil {
		return err
	}
	o, err := pipeline.Default(ctx)
	if err != nil {
		return err
	}
	folder, err := lock(pipeline.FolderOf(s, o))
	if err != nil {
		return err
	}
	defer folder.Close()
	return do(s, o)
}

// lock keeps other runs away from the work folder of a spec until the file
// that it returns is closed.
func lock(folder pipeline.Folder) (*os.File, error) {
	if err := os.MkdirAll(string(folder), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(string(folder))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &lockedError{folder}
		}
		return nil, &os.PathError{Op: "lock", Path: string(folder), Err: err}
	}
	return f, nil
}

// lockedError means that another run works in the folder.
type lockedError struct{ folder pipeline.Folder }

func (e *lockedError) Error() string { return "another run works in " + string(e.folder) }
func (e *lockedError) Hint() string {
	return "wait until it has ended, or set FOTHER_WORK to another folder"
}
