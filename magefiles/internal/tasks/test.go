package tasks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
)

// check is one part of a test run.
type check struct {
	name string
	run  func(context.Context) error
}

// lint are staticcheck's default checks, and that packages and exported names
// have comments of Go's form.
const lint = "inherit,ST1000,ST1016,ST1020,ST1021,ST1022"

// Test runs everything that CI runs. The first failure ends it.
func Test(ctx context.Context) error {
	return runAll(ctx, []check{
		{"tools", func(context.Context) error { return present() }},
		{"gofmt", gofmt},
		{"go vet", command(nil, "go", "vet", "./...")},
		{"go vet for aarch64", command([]string{"GOARCH=arm64"}, "go", "vet", "./...")},
		{"go vet of the program without registries", command(nil, "go", "vet", "-tags", "split", "./apply/cmd/fother")},
		{"staticcheck", command(nil, "go", "tool", "staticcheck", "-checks", lint, "./...")},
		{"the magefile builds", command(nil, "go", "tool", "mage", "-l")},
		{"go test", command(nil, "go", "test", "-timeout", "14m", "./...")},
		{"race detector", command(nil, "go", "test", "-race", "-short", "-timeout", "14m",
			"./apply/fleet", "./compiler", "./compiler/source", "./differ/semantic", "./kpack/bundle")},
		// Of these packages, the tests that have goroutines.
		{"race detector, differ", command(nil, "go", "test", "-race", "-run", "^TestParallel$", "./differ")},
		{"race detector, registry", command(nil, "go", "test", "-race", "-run", "^Test(PartOfLookup|Requests|RoundTrip|StoreGoesAway|TwoPublishers)$", "./registry")},
		{"race detector, pipeline", command(nil, "go", "test", "-race", "-short", "-run", "^Test(Cases|DigestTree|Killed|Progress|Samples|UpToDate)$", "./magefiles/internal/pipeline")},
	})
}

// present fails without what nothing can be built with. What else is missing it
// only names: tests that need it are skipped, except in CI.
func present() error {
	if err := tools.Check("gcc", "stdio.h", "as", "ld", "make", "git"); err != nil {
		return err
	}
	err := tools.Check(needs...)
	if err != nil && os.Getenv("CI") != "true" {
		fmt.Printf("== tests are skipped: %v\n", pipeline.Explain(err))
		return nil
	}
	return err
}

// Long runs what is slow: nginx under load, the patches of real security
// fixes, a registry of a million build-ids, all cases with all flags of both compilers, the tool that is killed at
// each of its calls, perf, the native tests on emulated aarch64 machines, and a program and
// services that are tortured for FOTHER_TORTURE, a duration, or two minutes.
func Long(ctx context.Context, out io.Writer, fother string, o pipeline.Options) error {
	return runAll(ctx, []check{
		{"go test, what is slow", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-timeout", "60m",
			"./magefiles/internal/corpus", "./magefiles/internal/nginx")},
		{"go test, the differ and its oracle with all flags of all compilers", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-timeout", "120m", "./differ/...")},
		{"go test, all cases with all flags of both compilers", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-timeout", "150m",
			"-run", "^Test(Cases|Samples|ThreadLocalOnAArch64)$", "./magefiles/internal/pipeline")},
		{"the tool is killed at each of its calls", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-v", "-timeout", "120m",
			"-run", "^TestKillMatrix$", "./apply")},
		{"a program is tortured, and writes fail", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-v", "-timeout", "24h",
			"-run", "^Test(Torture|WritesFail|ThousandsOfThreads)$", "./apply")},
		{"perf names new functions", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-v", "-run", "^TestPerfReport$", "./apply/cmd/fother")},
		{"the native tests on an emulated aarch64 machine", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-v", "-timeout", "30h",
			"-run", "^Test(Native|NewerKernel|KillMatrix|EndToEnd|Pages)OnAArch64$", "./magefiles/internal/pipeline")},
		{"a registry of a million build-ids", command([]string{"FOTHER_LONG=1"}, "go", "test", "-count", "1", "-v", "-timeout", "60m",
			"-run", "^Test(Scale|RotateInterrupted)$", "./registry")},
		{"nginx under load", func(ctx context.Context) error { return Real(ctx, out, fother, o) }},
		{"services in their sandboxes are patched at random", func(ctx context.Context) error { return Soak(ctx, out, fother, o) }},
		{"corpus", func(ctx context.Context) error {
			return Corpus(ctx, out, fother, o, "cjson", "nginx", "debian/giflib", "debian/yajl", "debian/libebml")
		}},
	})
}

// needs are the programs that the tests use.
var needs = []string{
	"gcc", "g++", "clang", "as", "ld", "ld.gold", "ld.lld", "ld.mold", "make", "cmake", "autoconf", "automake", "libtool", "libtoolize", "patch", "git",
	"aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++", "qemu-system-aarch64", "dpkg-deb", "tar", "zstd", "bzip2", "systemd-analyze", "gdb", "nginx", "docker-registry",
	"openssl", "faketime", "bc", "bison", "flex", "xz",
}

// Install installs what the tests need.
func Install(ctx context.Context) error { return tools.Install(ctx, needs...) }

func runAll(ctx context.Context, checks []check) error {
	for _, c := range checks {
		start := time.Now()
		if err := c.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		fmt.Printf("== %s: ok, %.1f s\n", c.name, time.Since(start).Seconds())
	}
	return nil
}

// command returns a check that runs a command with more environment variables
// and shows its output.
func command(env []string, name string, args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
}

// gofmt fails with the names of files that it would change.
func gofmt(ctx context.Context) error {
	files, err := exec.CommandContext(ctx, "git", "ls-files", "*.go").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	out, err := exec.CommandContext(ctx, "gofmt", append([]string{"-l"}, strings.Fields(string(files))...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if out = bytes.TrimSpace(out); len(out) > 0 {
		return fmt.Errorf("not formatted:\n%s", out)
	}
	return nil
}
