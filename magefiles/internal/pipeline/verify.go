package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// verifyDepends returns what the verification depends on beside the results
// of all other steps.
func (r *run) verifyDepends() (depends, error) {
	d := depends{}
	return d, d.addVersion()
}

// verify reads the bundle as a host would, and holds it against the spec and
// the original build.
func (r *run) verify(ctx context.Context) error {
	path := r.folder.Bundle(r.spec)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b, err := bundle.Decode(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := r.verifyManifest(b.Manifest); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	targets, err := Targets(r.spec, r.o)
	if err != nil {
		return err
	}
	own, err := definitions(r.folder.store())
	if err != nil {
		return err
	}
	var reasons []error
	seen := map[specs.BuildID]bool{}
	for _, t := range targets {
		i := slices.IndexFunc(b.Patches, func(p *kpack.Patch) bool { return p.Target.BuildID == t.BuildID })
		if i < 0 {
			reasons = append(reasons, fmt.Errorf("%s: the bundle has no patch for it", t.Name))
			continue
		}
		seen[t.BuildID] = true
		if err := verifyPatch(b.Patches[i], t, own); err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", t.Name, err))
		}
	}
	for _, p := range b.Patches {
		if !seen[p.Target.BuildID] {
			reasons = append(reasons, fmt.Errorf("%s: the bundle has a patch for build-id %s, which the build did not make", p.Target.Name, p.Target.BuildID))
		}
	}
	err = errors.Join(append(reasons, ctx.Err())...)
	if _, refused := errors.AsType[*LinkedError](err); refused && ctx.Err() == nil {
		return refusedError(reasons)
	}
	if err != nil {
		return err
	}
	r.o.say("%s: verify: %s the original build", r.spec.Name, plural(len(b.Patches), "patch fits", "patches fit"))
	return nil
}

func (r *run) verifyManifest(m bundle.Manifest) error {
	s := r.spec
	if m.Name != s.Name || m.Series != s.Series || m.Level != s.Level {
		return fmt.Errorf("the bundle is %s, series %s, level %d; the spec is %s, series %s, level %d",
			m.Name, m.Series, m.Level, s.Name, s.Series, s.Level)
	}
	digest, err := r.specDigest()
	if err == nil && m.Spec != digest {
		err = errors.New("the bundle was made from another spec")
	}
	return err
}

// verifyPatch holds a patch against the original build: the bytes of each
// function that it replaces, and that it lays out and links; and against both
// linked builds.
func verifyPatch(p *kpack.Patch, t Target, own *defined) error {
	original, err := elfobj.Open(t.Original.File)
	if err != nil {
		return err
	}
	id, err := original.BuildID()
	if err != nil {
		return fmt.Errorf("the original build: %w", err)
	}
	if id != p.Target.BuildID && t.Original.BuildID != p.Target.BuildID {
		return fmt.Errorf("the original build has build-id %s, the patch is for %s", id, p.Target.BuildID)
	}
	if p.Arch != original.Arch {
		return fmt.Errorf("the patch is for %v, the original build for %v", p.Arch, original.Arch)
	}
	reasons := verifyFunctions(p, t)
	for _, f := range p.Functions {
		body, err := original.ReadAt(f.Original.Lo, f.Original.Size())
		if err == nil && specs.DigestOf(body) != f.Digest {
			err = fmt.Errorf("the original build has other code at %#x", uint64(f.Original.Lo))
		}
		if err != nil {
			reasons = append(reasons, fmt.Errorf("function %s: %w", f.Name, err))
		}
	}
	for _, page := range p.Arch.PageSizes {
		if err := verifyLink(p, page); err != nil {
			reasons = append(reasons, fmt.Errorf("pages of %d bytes: %w", page, err))
		}
	}
	return errors.Join(append(reasons, oracle(p, t, own))...)
}

// verifyFunctions compares the functions of a patch with those that the
// comparison found changed.
func verifyFunctions(p *kpack.Patch, t Target) (reasons []error) {
	want, have := map[string]bool{}, map[string]bool{}
	for _, u := range t.Units {
		for _, f := range u.Changes.Functions {
			if f.Verdict == differ.Changed {
				want[f.Original] = true
			}
		}
	}
	for _, f := range p.Functions {
		have[f.Name] = true
		if !want[f.Name] {
			reasons = append(reasons, fmt.Errorf("function %s: in the patch, but not changed", f.Name))
		}
	}
	for name := range want {
		if !have[name] {
			reasons = append(reasons, fmt.Errorf("function %s: changed, but not in the patch", name))
		}
	}
	slices.SortFunc(reasons, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return reasons
}

// verifyLink lays the patch out and relocates it as if the target were loaded
// where it was linked, or low in memory if that is at 0, with the patch right before
// it, where its code is near, or behind it if there is no room, and all imports behind it.
func verifyLink(p *kpack.Patch, page uint64) error {
	const header = 4096 // room for what a tool keeps there
	l, err := p.Layout(page, header)
	if err != nil {
		return err
	}
	var bias specs.Bias
	if p.Target.Image.Lo == 0 {
		bias = specs.Bias(1<<20 + l.Size) // a multiple of the page size
	}
	start, end := bias.Addr(p.Target.Image.Lo)&^specs.Addr(page-1), bias.Addr(p.Target.Image.Hi)
	base := (end + specs.Addr(page)) &^ specs.Addr(page-1)
	_, last := changedCode(p)
	if uint64(start) > l.Size && uint64(bias.Addr(last)-start)+l.Size <= p.Arch.JumpReach {
		base = start - specs.Addr(l.Size)
	}
	resolve := func(kpack.Symbol) (specs.Addr, bool, error) { return end, false, nil }
	threads := func(s kpack.Symbol) (kpack.ThreadPlace, error) {
		return kpack.ThreadPlace{Module: 1, Offset: s.Value, Static: true}, nil
	}
	_, err = p.Link(l, base, bias, resolve, threads)
	return err
}
