package main

import (
	"context"
	"errors"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// opener reads and changes processes, each within its bound of time. It may be
// used by several goroutines.
type opener struct {
	*fleet.Limiter
	reading  fleet.Bound
	patching func(wait) fleet.Bound

	open    func(pid int) (*apply.Process, error)
	summary func(pid int) (*apply.Summary, error)
	ids     func(pid int) ([]specs.BuildID, error)
	prepare func(ctx context.Context, pid int, patches []*kpack.Patch) (*apply.Plan, error)
	apply   func(ctx context.Context, pid int, patches []*kpack.Patch, o apply.Options) (*apply.Result, error)
	revert  func(ctx context.Context, pid int, which []apply.Selector, o apply.Options) (*apply.Result, error)
}

func newOpener() *opener {
	reader, limiter := apply.NewReader(), fleet.NewLimiter()
	limiter.Reuse()
	return &opener{
		Limiter: limiter, reading: fleet.Reading(),
		patching: func(w wait) fleet.Bound { return fleet.Patching(time.Duration(w)) },
		open:     reader.Open, summary: reader.Summary, ids: reader.BuildIDs, prepare: apply.Prepare, apply: apply.Apply, revert: apply.Revert,
	}
}

// Open is [apply.Open] within the bound; errors are those of [fleet.Do] too.
func (o *opener) Open(ctx context.Context, pid int) (*apply.Process, error) {
	return fleet.Do(ctx, o.Limiter, pid, o.reading, func(context.Context) (*apply.Process, error) { return o.open(pid) })
}

// Summary is that of [apply.Reader] within the bound; errors are those of
// [fleet.Do] too.
func (o *opener) Summary(ctx context.Context, pid int) (*apply.Summary, error) {
	return fleet.Do(ctx, o.Limiter, pid, o.reading, func(context.Context) (*apply.Summary, error) { return o.summary(pid) })
}

// BuildIDs is that of [apply.Reader] within the bound; errors are those of
// [fleet.Do] too.
func (o *opener) BuildIDs(ctx context.Context, pid int) ([]specs.BuildID, error) {
	return fleet.Do(ctx, o.Limiter, pid, o.reading, func(context.Context) ([]specs.BuildID, error) { return o.ids(pid) })
}

// Prepare is [apply.Prepare] within the bound of a read.
func (o *opener) Prepare(ctx context.Context, pid int, patches []*kpack.Patch) (*apply.Plan, error) {
	return fleet.Do(ctx, o.Limiter, pid, o.reading, func(ctx context.Context) (*apply.Plan, error) { return o.prepare(ctx, pid, patches) })
}

// applyTo is [apply.Apply] within its bound.
func (t *tool) applyTo(ctx context.Context, pid int, patches []*kpack.Patch, o apply.Options) (*apply.Result, error) {
	return fleet.Do(ctx, t.opener.Limiter, pid, t.opener.patching(wait(max(o.Wait, 0))), func(ctx context.Context) (*apply.Result, error) {
		return t.opener.apply(ctx, pid, patches, o)
	})
}

// revertIn is [apply.Revert] within its bound.
func (t *tool) revertIn(ctx context.Context, pid int, which []apply.Selector, o apply.Options) (*apply.Result, error) {
	return fleet.Do(ctx, t.opener.Limiter, pid, t.opener.patching(wait(max(o.Wait, 0))), func(ctx context.Context) (*apply.Result, error) {
		return t.opener.revert(ctx, pid, which, o)
	})
}

// passOver reports whether an error of Open is no news where all processes are
// meant: the process is gone, not the caller's, or counted already.
func passOver(err error) bool {
	return errors.Is(err, apply.ErrGone) || errors.Is(err, apply.ErrPermission) || errors.Is(err, fleet.ErrLeftOut)
}

// noteLeftOut tells how many processes were left out.
func (t *tool) noteLeftOut() {
	if n := t.opener.LeftOut(); n > 0 {
		t.note("%s left out: %d of their users' others did not answer in time", count(n, "process"), fleet.MaxSilent)
	}
}
