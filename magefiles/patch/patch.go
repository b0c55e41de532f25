// Package patch has the Mage targets that make live patches and publish them.
// A project imports them into its own magefile:
//
//	import (
//		//mage:import
//		"github.com/fother/fother/magefiles/patch"
//	)
//
//	// So that "go tool mage patch SPEC" makes a patch.
//	var Aliases = map[string]any{"patch": patch.Patch.All}
//
// Each patch target takes the path of a spec. What is up to date is not made
// again; to make all anew, remove the folder of the spec in the work folder, for
// example after an update of system headers, which are not looked at.
//
// The work folder is .fother in the current folder; FOTHER_WORK names another.
// The registry is a folder too, FOTHER_REGISTRY or registry in the work folder;
// the keys that sign are in FOTHER_KEYS or keys in the work folder.
package patch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

// Patch is the namespace of the targets that make patches.
type Patch mg.Namespace

// All makes the live patches that a spec describes: build, diff, pack and verify, as far as needed. It prints the path of the bundle.
func (Patch) All(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		if _, err := pipeline.Make(ctx, s, o); err != nil {
			return err
		}
		_, err := fmt.Println(pipeline.Rel(pipeline.FolderOf(s, o).Bundle(s)))
		return err
	})
}

// Build builds the original and the patched tree of a spec under capture.
func (Patch) Build(ctx context.Context, spec string) error { return step(ctx, spec, "build") }

// Diff shows which functions of the two builds differ, and why.
func (Patch) Diff(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		if err := pipeline.Step(ctx, s, o, "diff"); err != nil {
			return err
		}
		targets, err := pipeline.Targets(s, o)
		if err != nil {
			return err
		}
		pipeline.Report(os.Stdout, targets)
		return nil
	})
}

// Pack writes the .kpatch files of what differs, and the bundle of all.
func (Patch) Pack(ctx context.Context, spec string) error { return step(ctx, spec, "pack") }

// Verify holds the bundle against the spec and the original build.
func (Patch) Verify(ctx context.Context, spec string) error { return step(ctx, spec, "verify") }

// Publish signs the verified bundle of a spec and puts it into the registry.
func (Patch) Publish(ctx context.Context, spec string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error { return pipeline.Publish(ctx, s, o) })
}

// step takes one step of the pipeline.
func step(ctx context.Context, spec, name string) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error { return pipeline.Step(ctx, s, o, name) })
}

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
	return exit(ctx, run(ctx, spec, do))
}

// exit gives a target's error its hints and its exit status.
func exit(ctx context.Context, err error) error {
	var (
		bad      *specError
		allow    *pipeline.AllowError
		refused  *differ.RefusalError
		semantic *pipeline.SemanticError
	)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		// What was stopped in the middle has its own errors, which mislead.
		return mg.Fatal(exitError, "interrupted")
	case errors.As(err, &bad):
		return mg.Fatal(exitUsage, pipeline.Explain(err))
	case errors.As(err, &refused), errors.As(err, &semantic):
		return mg.Fatal(exitRefused, pipeline.Explain(err))
	case errors.As(err, &allow):
		return mg.Fatal(exitUsage, pipeline.Explain(err))
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
	o.Spec = spec
	folder, err := pipeline.Lock(string(pipeline.FolderOf(s, o)))
	if err != nil {
		return err
	}
	defer folder.Close()
	return do(s, o)
}
