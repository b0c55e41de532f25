package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// Registry is where bundles come from: everything that it returns has been
// verified. [*registry.Client] is one.
type Registry interface {
	// Update brings the metadata up to date. After an error what was valid
	// before stays in use.
	Update(ctx context.Context) error
	// Lookup returns all releases for the given BuildIDs. With an error it
	// returns those of the BuildIDs that it can tell of.
	Lookup(ctx context.Context, ids []specs.BuildID) ([]catalog.Entry, error)
	// Fetch returns the bytes of an entry's bundle.
	Fetch(ctx context.Context, e catalog.Entry) ([]byte, error)
}

// pruner is a Registry that keeps the bundles that it has fetched.
type pruner interface {
	// Prune removes those of other entries, and bounds the rest.
	Prune(used []catalog.Entry) error
}

// Options of Pull. Registry and State are required.
type Options struct {
	Registry Registry
	// Address names the registry in errors and in the report.
	Address string
	// State is a folder for the lock, made if need be, which nobody but the
	// caller may write.
	State string
	// DryRun plans, and changes no process.
	DryRun bool
	// Wait is how long threads inside a function that changes are waited for,
	// for each process and bundle, as in [apply.Options].
	Wait time.Duration
	// PIDs are the processes to look at; nil is all but init and the caller.
	PIDs []int
	// Deny are the processes that are left alone; nil is none.
	Deny *Deny
	// Ready is called when a release's bundle has been read, before any process
	// is stopped for it; it may be nil.
	Ready func()
	// Logger hears what was done; nil is silent.
	Logger *slog.Logger
	// Progress hears what is being done now, in a few words, which may hold
	// names of others'; nil is silent.
	Progress func(what string)
}

// Pull makes one pass: it scans the host's processes, asks the registry for
// their BuildIDs, and applies what they lack.
//
// The report has everything that happened, including what failed for single
// processes and bundles or in the registry; the error says why there was no
// pass: [ErrLocked], a state folder that is not private, no /proc.
func Pull(ctx context.Context, o Options) (*Report, error) {
	unlock, err := lock(o.State)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return newPull(o, live{maxObjects, apply.NewReader()}).run(ctx)
}

// pull is one pass.
type pull struct {
	Options
	host   host
	log    *slog.Logger
	report *Report
	tasks  []*task
	asked  bool // the registry has answered, for all BuildIDs
	// revoked are the patches that the registry says are.
	revoked []choice
	// limiter bounds the work on processes, reading is its bound for a read.
	limiter *Limiter
	reading Bound
}

// task is a process that the registry has something for.
type task struct {
	*Process
	uid  int
	fits []choice
	has  []standing // as long as fits
	// recalled is what it has and should not have, of p.revoked.
	recalled []choice
	// gone is set if it has ended, left if it is left alone: work on it was given
	// up, and may still go on, or its user's time is used up.
	gone, left bool
}

func newPull(o Options, h host) *pull {
	p := &pull{Options: o, host: h, log: o.Logger, limiter: NewLimiter(), reading: Reading()}
	p.limiter.owner, p.limiter.Budget = h.owner, userBudget+10*max(o.Wait, 0)
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.report = &Report{Registry: o.Address, DryRun: o.DryRun, Time: time.Now().UTC(), Releases: []*Release{}, Processes: []*Process{}, Errors: []Failure{}}
	return p
}

func (p *pull) progress(format string, args ...any) {
	if p.Progress != nil {
		p.Progress(fmt.Sprintf(format, args...))
	}
}

func (p *pull) run(ctx context.Context) (*Report, error) {
	all, err := p.scan(ctx)
	if err != nil {
		return nil, err
	}
	p.expire(ctx, all)
	ids := p.buildIDs(all)
	p.report.BuildIDs = len(ids)
	p.log.Debug("scanned", "processes", p.report.Scanned, "denied", p.report.Denied, "build-ids", len(ids))
	choices := p.ask(ctx, ids)
	p.assign(ctx, all, choices)
	releases := p.releases(choices)
	for _, root := range []bool{true, false} { // others can make it slow
		for _, r := range releases {
			p.bring(ctx, r, root)
		}
		p.recall(ctx, root)
	}
	if err := ctx.Err(); err != nil {
		p.fail(fmt.Errorf("interrupted: %w", err))
	} else if p.asked && p.PIDs == nil {
		p.prune(choices)
	}
	p.remember(ids)
	p.finish()
	p.report.LeftOut = p.limiter.LeftOut()
	return p.report, nil
}

func (p *pull) fail(err error) {
	p.report.Errors = append(p.report.Errors, failure(err))
}

// ask brings the registry's metadata up to date and chooses what is for the
// given BuildIDs. If the registry is down, what it said before still holds, and
// what it says of some holds without the others.
func (p *pull) ask(ctx context.Context, ids []specs.BuildID) []choice {
	p.progress("asking %s", p.Address)
	if err := p.Registry.Update(ctx); err != nil {
		p.fail(fmt.Errorf("registry %s: %w", p.Address, err))
	}
	if len(ids) == 0 || ctx.Err() != nil {
		return nil
	}
	entries, err := p.Registry.Lookup(ctx, ids)
	if err != nil {
		p.fail(fmt.Errorf("registry %s: %w", p.Address, err))
	}
	p.asked = err == nil
	choices, revoked, errs := choose(entries, ids)
	p.revoked = revoked
	for _, err := range errs {
		p.fail(fmt.Errorf("registry %s: %w", p.Address, err))
	}
	p.log.Debug("asked", "registry", p.Address, "entries", len(entries), "chosen", len(choices))
	return choices
}

// prune drops the bundles that nothing here runs any more.
func (p *pull) prune(choices []choice) {
	r, ok := p.Registry.(pruner)
	if !ok {
		return
	}
	var used []catalog.Entry
	for _, c := range choices {
		used = append(used, c.entry)
	}
	if err := r.Prune(used); err != nil {
		p.fail(fmt.Errorf("registry %s: %w", p.Address, err))
	}
}

// assign finds out what each process has of what is there for it.
func (p *pull) assign(ctx context.Context, all []found, choices []choice) {
	byID := make(map[specs.BuildID][]choice)
	for _, c := range choices {
		byID[c.id.BuildID] = append(byID[c.id.BuildID], c)
	}
	for _, f := range all {
		t := &task{Process: &Process{PID: f.pid, Name: f.name}, uid: f.uid}
		for _, id := range f.ids {
			t.fits = append(t.fits, byID[id]...)
		}
		for _, c := range p.revoked {
			if slices.Contains(f.applied, c.id) {
				t.recalled = append(t.recalled, c)
			}
		}
		if len(t.fits)+len(t.recalled) > 0 && ctx.Err() == nil {
			p.tasks = append(p.tasks, t)
			p.compare(ctx, t)
		}
	}
}

// compare reads which of its releases the process of t has.
func (p *pull) compare(ctx context.Context, t *task) {
	for _, c := range t.fits {
		t.Fits = append(t.Fits, c.id)
	}
	var err error
	pid, ids := t.PID, slices.Clone(t.Fits) // work that was given up may still use them
	t.has, err = Do(ctx, p.limiter, pid, p.reading, func(context.Context) ([]standing, error) { return p.host.has(pid, ids) })
	if err != nil {
		t.fail(err)
		t.fits = nil // it is left alone
	}
	for i, c := range t.fits {
		if t.has[i] == present && t.below(c) {
			t.has[i] = lacks
		}
		switch t.has[i] {
		case present:
			t.Present = append(t.Present, c.id)
		case rejected:
			t.Rejected = append(t.Rejected, c.id)
		}
	}
}

// fail puts an error into the report of the process, unless the process has
// ended, or was left out: that is none, or told of another.
func (t *task) fail(err error) {
	var noFit *apply.NoFitError
	if errors.Is(err, apply.ErrGone) || errors.As(err, &noFit) { // or runs another program
		t.gone = true
		return
	}
	if t.left = errors.Is(err, ErrSilent) || errors.Is(err, ErrLeftOut); errors.Is(err, ErrLeftOut) {
		return
	}
	t.Errors = append(t.Errors, failure(err))
}

// finish sorts the report.
func (p *pull) finish() {
	r := p.report
	for _, t := range p.tasks {
		if t.gone && len(t.Steps) == 0 {
			r.Gone++
			continue
		}
		t.Fits, t.Present, t.Rejected = sortedIDs(t.Fits), sortedIDs(t.Present), sortedIDs(t.Rejected)
		r.Processes = append(r.Processes, t.Process)
	}
	slices.SortFunc(r.Processes, func(a, b *Process) int { return cmp.Compare(a.PID, b.PID) })
	r.Wall = time.Since(r.Time)
}

func sortedIDs(ids []specs.PatchID) []specs.PatchID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, comparePatches)
	return slices.Compact(ids)
}

func comparePatches(a, b specs.PatchID) int {
	return cmp.Or(cmp.Compare(a.BuildID, b.BuildID), cmp.Compare(a.Series, b.Series), cmp.Compare(a.Level, b.Level))
}
