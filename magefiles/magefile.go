//go:build mage

// Fother's own tasks. The ones that make patches are in package patch.
package main

import (
	"context"
	"os"
	"strings"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/magefiles/internal/demo"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tasks"
	"github.com/fother/fother/magefiles/internal/tools"
	//mage:import
	"github.com/fother/fother/magefiles/patch"
)

// Aliases lets "go tool mage test" stand for all tests of CI, and "go tool mage
// patch SPEC" for all steps from a spec to its patches.
var Aliases = map[string]any{"test": Test.All, "patch": patch.Patch.All}

// Test is the namespace of the tests.
type Test mg.Namespace

// All runs everything that CI runs: format, vet, linter, tests and the samples.
func (Test) All(ctx context.Context) error { return pipeline.Explain(tasks.Test(ctx)) }

// Long runs the slow tests: nginx under load, and the patches of real security fixes.
func (Test) Long(ctx context.Context) error {
	o, fother, err := commands(ctx)
	if err != nil {
		return err
	}
	return pipeline.Explain(tasks.Long(ctx, os.Stdout, fother, o))
}

// Tools is the namespace of what the machine needs.
type Tools mg.Namespace

// Install installs what the tests need, as root on Debian and its relatives.
func (Tools) Install(ctx context.Context) error { return pipeline.Explain(tasks.Install(ctx)) }

// Install builds the commands and puts them, and LibCare's names for them, into $DESTDIR$PREFIX/bin; PREFIX is /usr/local if not set.
func Install(ctx context.Context) error {
	return pipeline.Explain(tasks.InstallCommands(ctx, os.Stdout, os.Getenv("DESTDIR"), os.Getenv("PREFIX")))
}

// Demo attacks a running server, heals it while it runs, and undoes it again.
func Demo(ctx context.Context) error {
	if err := tools.Check("gcc", "stdio.h", "as", "ld", "make"); err != nil {
		return pipeline.Explain(err)
	}
	o, fother, err := commands(ctx)
	if err != nil {
		return err
	}
	return pipeline.Explain(demo.Run(ctx, os.Stdout, fother, o))
}

// Real patches Debian's nginx under load against three vulnerabilities.
func Real(ctx context.Context) error {
	o, fother, err := commands(ctx)
	if err != nil {
		return err
	}
	return pipeline.Explain(tasks.Real(ctx, os.Stdout, fother, o))
}

// Soak patches and reverts Debian's nginx, memcached and lighttpd at random, under load and in the sandbox of their units, for FOTHER_TORTURE.
func Soak(ctx context.Context) error {
	o, fother, err := commands(ctx)
	if err != nil {
		return err
	}
	return pipeline.Explain(tasks.Soak(ctx, os.Stdout, fother, o))
}

// Corpus makes the patches of real security fixes of a Debian package: nginx, cjson, memcached or less; debian measures the share that can be patched on others, debian/PACKAGE on one.
func Corpus(ctx context.Context, pkg string) error {
	o, fother, err := commands(ctx)
	if err != nil {
		return err
	}
	return pipeline.Explain(tasks.Corpus(ctx, os.Stdout, fother, o, pkg))
}

// Bench runs the benchmarks and prints their figures as tables; those of $PACKAGES, such as "./apply ./apply/cmd/fother", or all.
func Bench(ctx context.Context) error {
	return tasks.Bench(ctx, os.Stdout, strings.Fields(os.Getenv("PACKAGES"))...)
}

// commands builds what the steps need.
func commands(ctx context.Context) (o pipeline.Options, fother string, err error) {
	if o, err = pipeline.Default(ctx); err != nil {
		return o, "", err
	}
	fother, err = pipeline.Command(ctx, o.Work, "apply/cmd/fother")
	return o, fother, err
}
