package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/fother/fother/apply"
)

// expire reverts the patches whose trial has ended, whoever put them in.
func (p *pull) expire(ctx context.Context, all []found) {
	for _, f := range all {
		if !f.trialOver || ctx.Err() != nil {
			continue
		}
		p.progress("process %d (%s): a trial has ended", f.pid, f.name)
		e := Expired{PID: f.pid, Name: f.name}
		var err error
		if !p.DryRun {
			e.Result, err = Do(ctx, p.limiter, f.pid, Patching(p.Wait), func(ctx context.Context) (*apply.Result, error) {
				return p.host.expire(ctx, f.pid, apply.Options{Wait: p.Wait, Check: p.Deny.Check, Logger: p.Logger})
			})
		}
		var denied *DeniedError
		switch {
		case errors.As(err, &denied):
			p.leave(denied)
		case err == nil:
			p.report.Expired = append(p.report.Expired, e)
		case errors.Is(err, apply.ErrGone), errors.Is(err, apply.ErrNotApplied), errors.Is(err, ErrLeftOut):
		default:
			p.fail(fmt.Errorf("process %d (%s): revert a patch whose trial has ended: %w", f.pid, f.name, err))
		}
	}
}
