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
// patch:diff prints a report: what differs and why, and what stands in the way
// of a patch, with what the author can do; the patches are made in memory for
// that. With -json behind the spec, standard
// output has nothing but the report in the form of [pipeline.Report], for a fix
// that is refused too, which ends with exit status 4. The same is left in
// report.json in the folder of the spec.
//
// patch:verify -rebuild is for a second party, which reviews what another one
// has published: see [pipeline.Rebuild].
//
// The work folder is .fother in the current folder; FOTHER_WORK names another.
// The registry is a folder too, FOTHER_REGISTRY or registry in the work folder;
// the keys that sign are in FOTHER_KEYS or keys in the work folder, and in
// variables whose names begin with FOTHER_KEY_, such as FOTHER_KEY_TIMESTAMP. FOTHER_BUILDER
// is the URI that provenance names as who runs the builds.
package patch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
	library "github.com/fother/fother/registry"
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
func (Patch) Diff(
	ctx context.Context,
	spec string,
	json *bool, // print the report for machines; it is in report.json of the spec's work folder too
	v *bool, // print more: places in the assembly, names of files
) error {
	var report *pipeline.Report
	err := run(ctx, spec, func(s specs.Spec, o pipeline.Options) (err error) {
		report, err = pipeline.Compare(ctx, s, o)
		return err
	})
	if report != nil {
		if e := show(os.Stdout, report, is(json), is(v) || mg.Verbose()); e != nil {
			return exit(ctx, errors.Join(err, e))
		}
		if report.Result == pipeline.Refused && ctx.Err() == nil {
			err = &reportedError{err}
		}
	}
	return exit(ctx, err)
}

// show prints a report.
func show(w io.Writer, r *pipeline.Report, json, verbose bool) error {
	if !json {
		r.Text(w, verbose)
		return nil
	}
	data, err := r.JSON()
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

func is(flag *bool) bool { return flag != nil && *flag }

// reportedError is an error that the report has told all of, with its hints.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return "the fix is refused; the report says why" }

// As lets the exit status be that of the error.
func (e *reportedError) As(target any) bool { return errors.As(e.err, target) }

// Pack writes the .kpatch files of what differs, and the bundle of all.
func (Patch) Pack(ctx context.Context, spec string) error { return step(ctx, spec, "pack") }

// Verify holds the bundle against the spec and the original build; with -rebuild, makes the published bundle once more, compares it bit for bit, and signs it too.
func (Patch) Verify(
	ctx context.Context,
	spec string,
	rebuild *bool, // make the bundle that is in the registry once more; if it is the same, add the signature of the key at hand
	bundle *string, // with -rebuild: make the one in this file once more, and sign nothing
) error {
	switch {
	case is(rebuild):
		return exit(ctx, again(ctx, spec, bundle))
	case bundle != nil:
		return mg.Fatal(exitUsage, "-bundle goes with -rebuild")
	}
	return step(ctx, spec, "verify")
}

// again makes a bundle once more, where need be in a mount namespace in which
// the path of its build is free.
func again(ctx context.Context, spec string, bundle *string) error {
	s, o, err := read(ctx, spec)
	if err != nil {
		return err
	}
	path := ""
	if bundle != nil {
		path = *bundle
	}
	err = pipeline.Rebuild(ctx, s, o, path)
	place, blocked := errors.AsType[*pipeline.PlaceError](err)
	if !blocked {
		return err
	}
	inside := pipeline.InNamespace(ctx, place.Folder, o.Work)
	if ended, ok := errors.AsType[*exec.ExitError](inside); ok && ended.ExitCode() > 0 {
		return mg.Fatal(ended.ExitCode(), "the rebuild in a mount namespace of its own failed")
	}
	if inside != nil {
		return fmt.Errorf("%w; nor is there a mount namespace: %w", err, inside)
	}
	return nil
}

// Publish signs the verified bundle of a spec and puts it into the registry.
func (Patch) Publish(
	ctx context.Context,
	spec string,
	channel *string, // edge, beta or stable, which it is unless FOTHER_CHANNEL says otherwise
) error {
	return with(ctx, spec, func(s specs.Spec, o pipeline.Options) error {
		o.Channel = cmp.Or(text(channel), o.Channel)
		return pipeline.Publish(ctx, s, o)
	})
}

// Promote moves a release, named as NAME-LEVEL, up to the next channel: from edge to beta, from there to stable.
func (Patch) Promote(
	ctx context.Context,
	release string,
	to *string, // the channel, if not the next one
) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.Promote(ctx, o, release, text(to)) })
}

// Revoke has all hosts take a release, named as NAME-LEVEL, out, and never apply it again. The reason is shown there.
func (Patch) Revoke(ctx context.Context, release, reason string) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.Revoke(ctx, o, release, reason) })
}

// List shows what is published, a line for each release.
func (Patch) List(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.ListReleases(ctx, os.Stdout, o) })
}

func text(option *string) string {
	if option == nil {
		return ""
	}
	return *option
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

// Hint helps who names the folder of a spec instead of the spec, or an option
// before it.
func (e *specError) Hint() string {
	if strings.HasPrefix(e.path, "-") {
		return "name the spec first, and options behind it: SPEC " + e.path
	}
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
		bad     *specError
		refused *pipeline.RefusedError
		stale   *pipeline.StaleError
		differs *pipeline.DifferentError
		usage   *pipeline.UsageError
	)
	switch {
	case err == nil:
		return nil
	case mg.ExitStatus(err) > exitError:
		return err // it has been told
	case ctx.Err() != nil:
		// What was stopped in the middle has its own errors, which mislead.
		return mg.Fatal(exitError, "interrupted")
	case errors.As(err, &bad):
		return mg.Fatal(exitUsage, pipeline.Explain(err))
	case errors.As(err, &usage), errors.Is(err, library.ErrInvalid):
		return mg.Fatal(exitUsage, pipeline.Explain(err))
	case errors.As(err, &refused) && refused.OfSpec():
		return mg.Fatal(exitUsage, pipeline.Explain(err))
	case errors.As(err, &refused), errors.As(err, &stale) && stale.Refused, errors.As(err, &differs):
		return mg.Fatal(exitRefused, pipeline.Explain(err))
	}
	return mg.Fatal(exitError, pipeline.Explain(err))
}

// read reads a spec and returns the options for it.
func read(ctx context.Context, spec string) (s specs.Spec, o pipeline.Options, err error) {
	if s, err = specfile.Read(spec); err != nil {
		return s, o, &specError{err, spec}
	}
	if err := tools.Check("gcc", "as", "ld"); err != nil {
		return s, o, err
	}
	o, err = pipeline.Default(ctx)
	o.Spec = spec
	return s, o, err
}

func run(ctx context.Context, spec string, do func(specs.Spec, pipeline.Options) error) error {
	s, o, err := read(ctx, spec)
	if err != nil {
		return err
	}
	folder, err := pipeline.Lock(string(pipeline.FolderOf(s, o)))
	if err != nil {
		return err
	}
	defer folder.Close()
	return do(s, o)
}
