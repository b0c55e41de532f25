package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// Pack writes a .kpatch file for each target and returns their paths. All or
// none are written; the error has every reason.
func Pack(ctx context.Context, s specs.Spec, o Options, targets []Target) ([]string, error) {
	return PackAt(ctx, s, FolderOf(s, o).Layout(), o, targets)
}

// PackAt is Pack of what [DiffAt] returned for the same layout.
func PackAt(ctx context.Context, s specs.Spec, l Layout, o Options, targets []Target) ([]string, error) {
	made := map[string][]byte{}
	var paths []string
	var reasons []error
	for _, t := range targets {
		b, err := packTarget(ctx, s, l, t)
		if err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", t.Name, err))
			continue
		}
		path := filepath.Join(l.Patches, string(t.BuildID)+".kpatch")
		if made[path] != nil {
			reasons = append(reasons, fmt.Errorf("%s: another target has the same build-id %s", t.Name, t.BuildID))
		}
		made[path] = b
		paths = append(paths, path)
	}
	if len(reasons) > 0 {
		return nil, errors.Join(reasons...)
	}
	if err := os.RemoveAll(l.Patches); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.Patches, 0o755); err != nil {
		return nil, err
	}
	for i, path := range paths {
		if err := os.WriteFile(path, made[path], 0o644); err != nil {
			return nil, err
		}
		o.say("%s: %s: %d bytes for %s", s.Name, filepath.Base(path), len(made[path]), targets[i].Name)
	}
	return paths, nil
}

func packTarget(ctx context.Context, s specs.Spec, l Layout, t Target) ([]byte, error) {
	original, err := elfobj.Open(t.Original.File)
	if err != nil {
		return nil, err
	}
	patched, err := elfobj.Open(t.Patched.File)
	if err != nil {
		return nil, err
	}
	in := kpack.BuildInput{
		Arch: original.Arch, Name: filepath.Base(t.Name), Original: original, Patched: patched,
		Meta: kpack.Meta{
			Name: s.Name, Series: s.Series, Level: s.Level, Description: s.Description, CVEs: s.CVEs,
		},
	}
	dir := filepath.Join(l.Diff, string(t.BuildID))
	for i, u := range t.Units {
		in.Meta.Producer = u.Changes.Producer
		bu, err := packUnit(ctx, in.Arch, filepath.Join(dir, assemblyName(i, u)), u)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u.Changes.Unit, err)
		}
		in.Units = append(in.Units, bu)
	}
	p, err := kpack.Build(in)
	if err != nil {
		return nil, err
	}
	return p.Encode()
}

// packUnit assembles the patch assembly of one unit.
func packUnit(ctx context.Context, a *arch.Arch, path string, u Unit) (kpack.BuildUnit, error) {
	object, err := assemble(ctx, a, path)
	if err != nil {
		return kpack.BuildUnit{}, err
	}
	original, err := elfobj.Open(u.Original.Object)
	if err != nil {
		return kpack.BuildUnit{}, err
	}
	bu := kpack.BuildUnit{Name: u.Changes.Unit, Object: object, OriginalObject: original, Local: map[string]bool{}}
	for _, r := range u.Changes.References {
		if r.Local {
			bu.Local[r.Symbol] = true
		}
	}
	for _, fn := range u.Changes.Functions {
		if fn.Verdict == differ.Changed {
			bu.Functions = append(bu.Functions, kpack.BuildFunction{
				Original: fn.Original, Label: fn.Name + differ.Suffix, Reason: fn.Reason,
			})
		}
	}
	return bu, nil
}

// assemble runs binutils' assembler of an architecture.
func assemble(ctx context.Context, a *arch.Arch, path string) (*elfobj.File, error) {
	as := a.Tuple + "-as"
	if _, err := exec.LookPath(as); err != nil {
		as = "as" // the host's own; kpack.Build refuses an object for another machine
	}
	out := path[:len(path)-len(filepath.Ext(path))] + ".o"
	cmd := exec.CommandContext(ctx, as, "-o", out, path)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", as, err, bytes.TrimSpace(msg))
	}
	return elfobj.Open(out)
}
