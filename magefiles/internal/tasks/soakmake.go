package tasks

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/services"
	"github.com/fother/fother/specs"
)

// madeServices is what is booted and patched.
type madeServices struct {
	base    string
	replace map[string]string // see services.BoxOptions
	patches map[string]string // the folder of each fix, by name
	ids     map[string]specs.BuildID
}

// makeServices makes the Debian and all patches.
func makeServices(ctx context.Context, out io.Writer, o pipeline.Options) (*madeServices, error) {
	base, err := services.Base(ctx)
	if err != nil {
		return nil, err
	}
	m := &madeServices{base: base, replace: map[string]string{}, patches: map[string]string{}, ids: map[string]specs.BuildID{}}
	for _, p := range services.Packages {
		if err := m.make(ctx, out, p, o); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return m, nil
}

// make makes the patches of one package. Where the build is not the
// distribution's, it takes its place.
func (m *madeServices) make(ctx context.Context, out io.Writer, p services.Package, o pipeline.Options) error {
	dist := filepath.Join(m.base, p.File)
	all, err := p.Specs(ctx, filepath.Join(o.Work, "source", p.Name), dist)
	if err != nil {
		return err
	}
	want, err := buildID(dist)
	if err != nil {
		return err
	}
	for i, f := range append(slices.Clone(p.Levels), p.More...) {
		folder := pipeline.FolderOf(all[i], o)
		if _, err := pipeline.Make(ctx, all[i], o); err != nil {
			return err
		}
		m.patches[f.Name] = folder.Patches()
		built := filepath.Join(folder.Original(), p.Output)
		id, err := buildID(built)
		if err != nil {
			return err
		}
		if was := m.ids[p.Name]; was != "" && was != id {
			return fmt.Errorf("two original builds have the build-ids %s and %s", was, id)
		}
		m.ids[p.Name] = id
		if id == want {
			continue
		}
		stripped := filepath.Join(o.Work, p.Name+".stripped")
		if said, err := exec.CommandContext(ctx, "strip", "-o", stripped, built).CombinedOutput(); err != nil {
			return fmt.Errorf("strip: %w\n%s", err, said)
		}
		m.replace[p.File] = stripped
	}
	if m.ids[p.Name] == want {
		fmt.Fprintf(out, "soak: %s %s: Debian's own %s, build-id %s\n", p.Name, p.Version, p.File, want.Short())
	} else {
		fmt.Fprintf(out, "soak: %s %s: built here, build-id %s, in the place of Debian's %s, %s\n", p.Name, p.Version, m.ids[p.Name].Short(), p.File, want.Short())
	}
	return nil
}

func buildID(path string) (specs.BuildID, error) {
	f, err := elfobj.Open(path)
	if err != nil {
		return "", err
	}
	return f.BuildID()
}
