package lpmake

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs"
)

// withdraw removes the patches that an earlier run put into Patchroot.
func (r *run) withdraw(s *state) error {
	if len(s.Made) == 0 {
		return nil
	}
	for _, path := range s.Made {
		if err := remove(path); err != nil {
			return err
		}
	}
	s.Made = nil
	return r.setState(s)
}

// pack compares the two builds and puts the patches into Patchroot.
func (r *run) pack(ctx context.Context, s *state) ([]Patch, error) {
	r.say("making the patches")
	layout, options := r.pipeline()
	spec, err := r.spec(s)
	if err != nil {
		return nil, err
	}
	targets, err := pipeline.DiffAt(ctx, spec, layout, options)
	if err != nil {
		if errors.Is(err, compiler.ErrUnseen) && !r.Clean {
			err = hinted(err, hintClean, "%v", err)
		}
		return nil, err
	}
	for _, t := range targets {
		for _, u := range t.Unchecked {
			r.say("warning: %s: %s; build with -g to have them compared", t.Name, u)
		}
		for _, w := range t.Warnings {
			r.say("warning: %s: %s", t.Name, w)
		}
	}
	made, err := pipeline.PackAt(ctx, spec, layout, options, targets)
	if err != nil {
		return nil, err
	}
	out, err := r.publish(s, made)
	if err != nil {
		return nil, err
	}
	return out, r.setState(s)
}

// publish puts the patches that were made into Patchroot, sorted by target, and
// notes that in s.
func (r *run) publish(s *state, made []string) ([]Patch, error) {
	if err := os.MkdirAll(r.Patchroot, 0o755); err != nil {
		return nil, err
	}
	var out []Patch
	for _, path := range made {
		to := filepath.Join(r.Patchroot, filepath.Base(path))
		data, err := os.ReadFile(path)
		if err == nil {
			err = writeSynced(to, data)
		}
		if err != nil {
			return nil, err
		}
		s.Made = append(s.Made, to)
		out = append(out, Patch{File: to, Target: s.installedAs(strings.TrimSuffix(filepath.Base(path), ".kpatch"))})
	}
	slices.SortFunc(out, func(a, b Patch) int { return cmp.Compare(a.Target, b.Target) })
	return out, nil
}

// installedAs returns where the target with a build-id is.
func (s *state) installedAs(id string) string {
	for _, t := range s.Installed {
		if string(t.BuildID) == id {
			return t.Path
		}
	}
	return id
}

// spec describes the release as the pipeline's steps want it.
func (r *run) spec(s *state) (specs.Spec, error) {
	spec := specs.Spec{
		Name: releaseName(filepath.Base(r.Dir)), Dir: r.Dir, Series: specs.DefaultSeries, Level: r.Level,
		Description: strings.Join(s.Sources, ", "), Patches: r.fix(s),
	}
	for _, t := range s.Installed {
		rel, err := filepath.Rel(r.Dir, t.Output)
		if err != nil {
			return spec, err
		}
		spec.Targets = append(spec.Targets, rel)
	}
	return spec, nil
}

// releaseName makes a name of a release out of a folder's: letters, digits,
// dots, dashes and underscores, beginning with a letter or digit.
func releaseName(folder string) string {
	name := strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c)) {
			return c
		}
		return '-'
	}, folder)
	name = strings.TrimLeft(name[:min(len(name), 64)], "._-")
	if name == "" {
		return "make"
	}
	return name
}
