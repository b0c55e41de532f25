package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// module is where the commands are built from.
const module = "github.com/fother/fother"

// Default returns the options of the Mage targets: the work folder is
// $FOTHER_WORK or .fother in the current folder, fother-cc is built into it,
// and progress goes to standard error.
func Default(ctx context.Context) (Options, error) {
	work := os.Getenv("FOTHER_WORK")
	if work == "" {
		work = ".fother"
	}
	work, err := filepath.Abs(work)
	if err != nil {
		return Options{}, err
	}
	shim, err := Command(ctx, work, "compiler/cmd/fother-cc")
	return Options{Work: work, Shim: shim, Progress: os.Stderr}, err
}

// Command builds one of Fother's commands into work/bin and returns its path.
// It works from any module that requires Fother. Env is added to the
// environment of go build, such as GOARCH=arm64.
//
// No version is stamped in: go build would refuse a checkout that belongs to
// another user.
func Command(ctx context.Context, work, pkg string, env ...string) (string, error) {
	path := filepath.Join(work, "bin", filepath.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, module+"/"+pkg)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return path, nil
}
