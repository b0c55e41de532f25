package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Bounds on what processes can make a pass do. A large program has some
// hundreds of objects.
const (
	// maxObjects is the number of objects of one process that are looked at:
	// the executable, then libraries in the order of symbol look-up.
	maxObjects = 1024
	// maxBuildIDs is the number of different BuildIDs that one pass asks for.
	maxBuildIDs = 16 << 10
	// userBudget is the time that all work on one user's processes may take,
	// beyond ten times the wait for threads. What is left the next pass does.
	userBudget = 2 * time.Minute
)

// found is a process as the scan saw it.
type found struct {
	pid     int
	uid     int // real
	name    string
	ids     []specs.BuildID // of its objects, each once, in the order of look-up
	applied []specs.PatchID // that are in force
	// objects is how many were looked at, more how many were not.
	objects, more int
	// trialOver is set if the trial of a patch has ended.
	trialOver bool
}

// host is what a pass needs of the machine.
type host interface {
	processes() ([]int, error)
	// owner returns the real user of a process.
	owner(pid int) (uid int, err error)
	// read reads the BuildIDs of a process.
	read(pid int) (found, error)
	// has says which of the given patches a process has.
	has(pid int, ids []specs.PatchID) ([]standing, error)
	// revert takes patches out.
	revert(ctx context.Context, pid int, which []apply.Selector, o apply.Options) (*apply.Result, error)
	// expire reverts what was on trial and was not accepted.
	expire(ctx context.Context, pid int, o apply.Options) (*apply.Result, error)
	prepare(ctx context.Context, pid int, patches []*kpack.Patch) (*apply.Plan, error)
	apply(ctx context.Context, pid int, patches []*kpack.Patch, o apply.Options) (*apply.Result, error)
}

// standing is how a process stands to a patch.
type standing int

const (
	lacks    standing = iota
	present           // at this level or a higher one
	rejected          // was on trial, and was not accepted
)

// live is the host that the caller runs on.
type live struct {
	// objects is how many objects of a process are looked at.
	objects int
}

func (live) processes() ([]int, error) { return apply.Processes() }

func (live) owner(pid int) (int, error) { return owner(pid) }

func (l live) read(pid int) (found, error) {
	p, err := apply.Open(pid)
	if err != nil {
		return found{}, err
	}
	defer p.Close()
	f := found{pid: pid, name: p.Name, trialOver: p.TrialOver()}
	objects := p.Objects()
	f.more = max(0, len(objects)-l.objects)
	seen := make(map[specs.BuildID]bool)
	f.objects = len(objects) - f.more
	for _, o := range objects[:f.objects] {
		if o.BuildID != "" && !seen[o.BuildID] {
			seen[o.BuildID] = true
			f.ids = append(f.ids, o.BuildID)
		}
	}
	for _, a := range p.Applied() {
		if a.State == "applied" {
			f.applied = append(f.applied, a.PatchID)
		}
	}
	return f, nil
}

func (live) has(pid int, ids []specs.PatchID) ([]standing, error) {
	p, err := apply.Open(pid)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	has := make([]standing, len(ids))
	for i, id := range ids {
		switch {
		case p.Has(id):
			has[i] = present
		case p.Rejected(id):
			has[i] = rejected
		}
	}
	return has, nil
}

func (live) prepare(ctx context.Context, pid int, patches []*kpack.Patch) (*apply.Plan, error) {
	return apply.Prepare(ctx, pid, patches)
}

func (live) apply(ctx context.Context, pid int, patches []*kpack.Patch, o apply.Options) (*apply.Result, error) {
	return apply.Apply(ctx, pid, patches, o)
}

func (live) expire(ctx context.Context, pid int, o apply.Options) (*apply.Result, error) {
	return apply.Expire(ctx, pid, o)
}

func (live) revert(ctx context.Context, pid int, which []apply.Selector, o apply.Options) (*apply.Result, error) {
	return apply.Revert(ctx, pid, which, o)
}

// scan reads the processes, root's first: others can make it slow. What cannot
// be read is told in the report.
func (p *pull) scan(ctx context.Context) ([]found, error) {
	pids := p.PIDs
	if pids == nil {
		var err error
		if pids, err = p.host.processes(); err != nil {
			return nil, err
		}
	}
	p.progress("looking at what runs")
	var all []found
	for _, c := range p.byUser(pids) {
		if ctx.Err() != nil {
			break
		}
		if denied := (*DeniedError)(nil); errors.As(p.Deny.Check(c.pid), &denied) {
			p.leave(denied)
			continue
		}
		f, err := Do(ctx, p.limiter, c.pid, p.reading, func(context.Context) (found, error) { return p.host.read(c.pid) })
		if err != nil {
			p.unread(ctx, c.pid, err)
			continue
		}
		f.uid = c.uid
		p.report.Scanned++
		all = append(all, f)
		if f.more > 0 {
			p.fail(fmt.Errorf("process %d (%s): %d objects: only the first %d were looked at", f.pid, f.name, f.objects+f.more, f.objects))
		}
	}
	if n := p.report.Denied; n > 0 && len(all) == 0 {
		p.fail(fmt.Errorf("not one of %d processes can be looked at: %w", n, apply.ErrPermission))
	}
	return all, nil
}

// leave notes that a process was left alone. Where it was named, that is an
// error.
func (p *pull) leave(denied *DeniedError) {
	if p.PIDs != nil {
		p.fail(fmt.Errorf("process %d: %w", denied.PID, denied))
	}
	alone := LeftAlone{denied.PID, comm(denied.PID), denied.Rule}
	if !slices.Contains(p.report.LeftAlone, alone) {
		p.report.LeftAlone = append(p.report.LeftAlone, alone)
	}
}

// comm returns a process's name, empty if it has ended.
func comm(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// unread notes why a process could not be read. Of all processes those that
// have ended are no news, and those that may not be traced are counted.
func (p *pull) unread(ctx context.Context, pid int, err error) {
	switch {
	case errors.Is(err, apply.ErrGone) && p.PIDs == nil, errors.Is(err, ErrLeftOut):
	case errors.Is(err, apply.ErrPermission) && p.PIDs == nil:
		p.report.Denied++
	case ctx.Err() == nil:
		p.fail(fmt.Errorf("process %d: %w", pid, err))
	}
}

// byUser returns processes by their users' numbers: root's first, then those of
// the system's users, of people, and of what people made users of.
func (p *pull) byUser(pids []int) []found {
	all := make([]found, len(pids))
	for i, pid := range pids {
		all[i].pid = pid
		all[i].uid, _ = p.host.owner(pid) // whoever has ended is found out later
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(a.uid, b.uid) })
	return all
}

// buildIDs returns the BuildIDs to ask for, sorted. If there are too many,
// those that stand first in their process go before: nobody can crowd out the
// executables of others.
func (p *pull) buildIDs(all []found) []specs.BuildID {
	rank := make(map[specs.BuildID]int)
	for _, f := range all {
		for i, id := range f.ids {
			if r, ok := rank[id]; !ok || i < r {
				rank[id] = i
			}
		}
	}
	ids := make([]specs.BuildID, 0, len(rank))
	for id := range rank {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b specs.BuildID) int { return cmp.Or(cmp.Compare(rank[a], rank[b]), cmp.Compare(a, b)) })
	if n := len(ids); n > maxBuildIDs {
		p.fail(fmt.Errorf("%d different build-ids run here: only %d were looked at", n, maxBuildIDs))
		ids = ids[:maxBuildIDs]
	}
	slices.Sort(ids)
	return ids
}
