package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fother/fother/magefiles/internal/stop"
	"github.com/fother/fother/registry"
)

// module is where the commands are built from.
const module = "github.com/fother/fother"

// Default returns the options of the Mage targets: the work folder is
// $FOTHER_WORK or .fother in the current folder, fother-cc is built into it,
// and progress goes to standard error. The registry is the folder or address
// $FOTHER_REGISTRY, and the keys the folder $FOTHER_KEYS, or registry and keys
// in the work folder.
// The channel is $FOTHER_CHANNEL.
func Default(ctx context.Context) (Options, error) {
	stop.AsInterrupt()
	o, err := Folders()
	if err != nil {
		return o, err
	}
	o.Shim, err = Command(ctx, o.Work, "compiler/cmd/fother-cc")
	return o, err
}

// Folders is Default without fother-cc.
func Folders() (Options, error) {
	o := Options{
		Work: os.Getenv("FOTHER_WORK"), Registry: os.Getenv("FOTHER_REGISTRY"), Keys: os.Getenv("FOTHER_KEYS"), Builder: os.Getenv("FOTHER_BUILDER"),
		Channel: os.Getenv("FOTHER_CHANNEL"), Progress: os.Stderr,
	}
	o.Work = cmp.Or(o.Work, ".fother")
	o.Registry = cmp.Or(o.Registry, filepath.Join(o.Work, "registry"))
	o.Keys = cmp.Or(o.Keys, filepath.Join(o.Work, "keys"))
	for _, dir := range []*string{&o.Work, &o.Registry, &o.Keys} {
		if dir == &o.Registry && registry.IsAddress(*dir) {
			continue
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return o, err
		}
		*dir = abs
	}
	return o, nil
}

// Command builds one of Fother's commands into work/bin and returns its path.
// It works from any module that requires Fother. Env is added to the
// environment of go build, such as GOARCH=arm64.
//
// No version is stamped in: go build would refuse a checkout that belongs to
// another user.
func Command(ctx context.Context, work, pkg string, env ...string) (string, error) {
	return TaggedCommand(ctx, work, pkg, filepath.Base(pkg), "", env...)
}

// TaggedCommand is [Command] for a program of another name, which is built with
// tags.
func TaggedCommand(ctx context.Context, work, pkg, name, tags string, env ...string) (string, error) {
	path := filepath.Join(work, "bin", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-tags="+tags, "-o", path, module+"/"+pkg)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return path, nil
}
