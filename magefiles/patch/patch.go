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
	"fmt"
	"os"

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
		targets, err := pipeline.Diff(ctx, s, o)
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
		targets, err := pipeline.Diff(ctx, s, o)
		if err != nil {
			return err
		}
		_, err = pipeline.Pack(ctx, s, o, targets)
		return err
	})
}

// Exit statuses of the targets, those of the fother command.
const (
	exitError   = 1
	exitUsage   = 2
	exitRefused = 4
)

// with reads the spec and finds the tools, then calls do. Hints go to standard
// error, before the error that Mage prints.
func with(ctx context.Context, spec string, do func(specs.Spec, pipeline.Options) error) error {
	err := run(ctx, spec, do)
	for _, h := range pipeline.Hints(err) {
		fmt.Fprintln(os.Stderr, "fother: hint:", h)
	}
	var (
		bad     *specfile.Error
		refused *differ.RefusalError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &bad):
		return mg.Fatal(exitUsage, err)
	case errors.As(err, &refused):
		return mg.Fatal(exitRefused, err)
	}
	return mg.Fatal(exitError, err)
}

func run(ctx context.Context, spec string, do func(specs.Spec, pipeline.Options) error) error {
	s, err := specfile.Read(spec)
	if err != nil {
		return err
	}
	if err := tools.Check("gcc", "as", "ld"); err != nil {
		return err
	}
	o, err := pipeline.Default(ctx)
	if err != nil {
		return err
	}
	return do(s, o)
}
