package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// bring fetches a release and applies it to the processes that lack it: root's
// or all others. Then others may have the bundle fetched again, which the
// registry keeps.
func (p *pull) bring(ctx context.Context, r *release, root bool) {
	var todo []lacking
	for _, l := range r.lacking {
		if (l.uid == 0) == root && !l.gone && !l.left {
			todo = append(todo, l)
		}
	}
	if len(todo) == 0 || len(r.Errors) > 0 || ctx.Err() != nil {
		return
	}
	patches, err := p.fetch(ctx, r)
	if err != nil {
		if ctx.Err() == nil {
			r.Errors = append(r.Errors, failure(fmt.Errorf("%s: %w", r.File, err)))
		}
		return
	}
	if p.Ready != nil {
		p.Ready()
	}
	for _, l := range todo {
		if ctx.Err() != nil {
			return
		}
		p.patch(ctx, r, l, patches)
	}
}

// fetch returns the patches of a release by target.
func (p *pull) fetch(ctx context.Context, r *release) (map[specs.BuildID]*kpack.Patch, error) {
	p.progress("fetching %s", r.File)
	data, err := p.Registry.Fetch(ctx, r.entry)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", p.Address, err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		return nil, err
	}
	return r.match(b)
}

// match holds a bundle against the entries that named it.
func (r *release) match(b *bundle.Bundle) (map[specs.BuildID]*kpack.Patch, error) {
	m := b.Manifest
	var errs []error
	if m.Name != r.Package {
		errs = append(errs, fmt.Errorf("is a bundle of %q: the registry lists it for %q", m.Name, r.Package))
	}
	if m.Series != r.Series || m.Level != r.Level {
		errs = append(errs, fmt.Errorf("is series %s, level %d: the registry lists it as series %s, level %d", m.Series, m.Level, r.Series, r.Level))
	}
	patches := make(map[specs.BuildID]*kpack.Patch)
	for _, patch := range b.Patches {
		if id := (specs.PatchID{BuildID: patch.Target.BuildID, Series: patch.Meta.Series, Level: patch.Meta.Level}); id.Series == r.Series && id.Level == r.Level {
			patches[id.BuildID] = patch
		}
	}
	for _, id := range r.BuildIDs {
		if patches[id] == nil {
			errs = append(errs, fmt.Errorf("holds no patch for build-id %s: the registry lists it for that", id))
		}
	}
	return patches, errors.Join(errs...)
}

// patch applies to one process what it lacks of a release, in one commit.
func (p *pull) patch(ctx context.Context, r *release, l lacking, patches map[specs.BuildID]*kpack.Patch) {
	var mine []*kpack.Patch
	for _, id := range l.ids {
		if patch := patches[id.BuildID]; !slices.Contains(mine, patch) {
			mine = append(mine, patch)
		}
	}
	p.progress("process %d (%s): %s", l.PID, l.Name, r.File)
	step, err := p.put(ctx, l, mine)
	step.File = r.File
	var denied *DeniedError
	switch {
	case errors.As(err, &denied): // it runs another program than when it was read
		l.left = true
		p.leave(denied)
	case err == nil:
		l.Steps = append(l.Steps, step)
		p.replaced(l.task, step)
		p.log.Debug("applied", "pid", l.PID, "bundle", r.File, "dry-run", p.DryRun)
	case errors.Is(err, apply.ErrAlreadyApplied): // by another run, meanwhile
		l.Present = append(l.Present, l.ids...)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil: // told for the whole pass
	default:
		l.fail(fmt.Errorf("%s: %w", r.File, err))
	}
}

// put applies patches to a process. Where a lower level cannot go on with the
// variables of the one that was revoked, that is taken out first.
func (p *pull) put(ctx context.Context, l lacking, patches []*kpack.Patch) (Step, error) {
	do := func() (Step, error) {
		return Do(ctx, p.limiter, l.PID, Patching(p.Wait), func(ctx context.Context) (Step, error) { return p.step(ctx, l.PID, patches) })
	}
	step, err := do()
	var state *apply.StateError
	if !errors.As(err, &state) || len(l.recalled) == 0 {
		return step, err
	}
	for _, c := range slices.Clone(l.recalled) {
		if slices.ContainsFunc(patches, func(k *kpack.Patch) bool { return k.Target.BuildID == c.id.BuildID && k.Meta.Series == c.id.Series }) {
			p.takeOut(ctx, l.task, c)
		}
	}
	return do()
}

func (p *pull) step(ctx context.Context, pid int, patches []*kpack.Patch) (Step, error) {
	if !p.DryRun {
		res, err := p.host.apply(ctx, pid, patches, apply.Options{Wait: p.Wait, Check: p.Deny.Check, Revoked: p.revokedIDs(), Logger: p.Logger})
		return Step{Result: res}, err
	}
	plan, err := p.host.prepare(ctx, pid, patches)
	if err != nil {
		return Step{}, err
	}
	if len(plan.Apply) == 0 {
		return Step{}, apply.ErrAlreadyApplied
	}
	return Step{Apply: plan.Apply, Replace: plan.Replace}, nil
}
