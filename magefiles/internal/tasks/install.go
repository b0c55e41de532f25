package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fother/fother/magefiles/internal/pipeline"
)

// programs are the commands that are installed, with the packages and tags that they
// are built from. The first fother leaves registries to the second.
var programs = []struct{ name, pkg, tags string }{
	{"fother", "apply/cmd/fother", "split"},
	{"fother-registry", "apply/cmd/fother", ""},
	{"fother-cc", "compiler/cmd/fother-cc", ""},
	{"fother-make", "magefiles/cmd/fother-make", ""},
}

// links are other names of the commands: the compiler wrapper for C++, and
// LibCare's names.
var links = [][2]string{
	{"fother-c++", "fother-cc"},
	{"libcare-cc", "fother-cc"},
	{"libcare-ctl", "fother"},
	{"libcare-patch-make", "fother-make"},
}

// InstallCommands builds the commands and puts them, with the symbolic links
// that are their other names, into the folder bin of prefix; DESTDIR, if not
// empty, stands before it. What was there is replaced in one step each, also
// while it runs. Out gets a line for each.
func InstallCommands(ctx context.Context, out io.Writer, destdir, prefix string) error {
	if prefix == "" {
		prefix = "/usr/local"
	}
	if !filepath.IsAbs(prefix) || destdir != "" && !filepath.IsAbs(destdir) {
		return fmt.Errorf("PREFIX=%s DESTDIR=%s: absolute paths are expected", prefix, destdir)
	}
	bin := filepath.Join(destdir, prefix, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return &installError{err}
	}
	// On the same file system, so that a rename puts them in place.
	temp, err := os.MkdirTemp(bin, ".fother-")
	if err != nil {
		return &installError{err}
	}
	defer os.RemoveAll(temp)
	for _, p := range programs {
		built, err := pipeline.TaggedCommand(ctx, temp, p.pkg, p.name, p.tags)
		if err != nil {
			return err
		}
		if err := os.Chmod(built, 0o755); err != nil {
			return err
		}
		if err := place(out, filepath.Join(bin, p.name), built); err != nil {
			return err
		}
	}
	for _, l := range links {
		link := filepath.Join(temp, l[0])
		if err := os.Symlink(l[1], link); err != nil {
			return err
		}
		if err := place(out, filepath.Join(bin, l[0]), link); err != nil {
			return err
		}
	}
	return nil
}

// place moves what was made to path.
func place(out io.Writer, path, made string) error {
	if err := os.Rename(made, path); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, path)
	return err
}

// installError means that the folder cannot be written to.
type installError struct{ error }

func (e *installError) Unwrap() error { return e.error }

// Hint says what the user can do.
func (e *installError) Hint() string {
	if errors.Is(e.error, os.ErrPermission) {
		return "run it as root, or choose a folder of your own: PREFIX=$HOME/.local go tool mage install"
	}
	return "PREFIX and DESTDIR name another folder"
}
