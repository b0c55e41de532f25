package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// maxAgents bounds how many threads are asked to make system calls.
const maxAgents = 16

// withAgent has one thread of the process stopped and ready to make system
// calls while f runs. intent is what f maps. It returns how long the thread was
// held.
func (p *Process) withAgent(ctx context.Context, intent specs.Range[specs.Addr], f func(*ptrace.Agent) error) (time.Duration, error) {
	return p.withPermitted(ctx, nil, intent, f)
}

// withPermitted is withAgent for a thread whose seccomp filters let it make some
// calls without the tool.
//
// Errors: [*ptrace.DeniedError] if no thread may.
func (p *Process) withPermitted(ctx context.Context, calls []ptrace.Call, intent specs.Range[specs.Addr], f func(*ptrace.Agent) error) (time.Duration, error) {
	var held time.Duration
	err := p.untilOneServes(ctx, func(tid int) (done bool, err error) {
		err = ptrace.Do(func() error {
			h, d, e := p.tryAgent(tid, calls, intent, f)
			held, done = held+h, d
			return e
		})
		return done, err
	})
	return held, err
}

// starvedLimit is how long all threads that are tried may get no processor.
const starvedLimit = time.Minute

// untilOneServes calls try for threads of the process, until it is done or its error
// is not one of the thread alone. Threads that get no processor are tried again, as
// long as ctx does not end; each is tried once even so, to clear up.
func (p *Process) untilOneServes(ctx context.Context, try func(tid int) (done bool, err error)) error {
	for end := time.Now().Add(starvedLimit); ; {
		done, err := p.tryThreads(try)
		stuck := (*StuckError)(nil)
		if done || !errors.As(err, &stuck) || stuck.State != "R" || time.Now().After(end) {
			return err
		}
		if e := ctx.Err(); e != nil {
			return fmt.Errorf("%w; given up: %w", err, e)
		}
	}
}

// clearingTime is how long a run that was cancelled may take to clear up.
const clearingTime = 5 * time.Second

// clearing returns a context for clearing up: it ends when ctx has for that long. What
// is left then the next run clears away.
func clearing(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	c, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(limit):
		case <-c.Done():
		}
		cancel()
	})
	return c, func() { stop(); cancel() }
}

// tryThreads calls try for threads of the process, each once. The error of one that is
// not done is the last thread's, or that of a filter.
func (p *Process) tryThreads(try func(tid int) (done bool, err error)) (done bool, err error) {
	tids, err := ptrace.Threads(p.PID)
	if err != nil {
		return false, procError(err)
	}
	p.preferAgents(tids)
	err = ErrGone
	var forbidden error // which tells more than what is wrong with others
	for _, tid := range tids[:min(len(tids), maxAgents)] {
		done, err = try(tid)
		switch {
		case done:
			return true, err
		case errors.Is(err, ErrSeccomp), errors.As(err, new(*ptrace.DeniedError)):
			forbidden = cmp.Or(forbidden, err)
		// A thread that has ended meanwhile says ErrGone, as a process does.
		case !errors.Is(err, ptrace.ErrUnsuitable) && !errors.Is(err, ErrGone) && !errors.As(err, new(*StuckError)):
			return false, err
		}
	}
	return false, cmp.Or(forbidden, err)
}

// preferAgents sorts threads to the front that can be stopped at once, before those
// whose calls a filter may forbid. Of equal ones the first thread is the last: while it
// is traced the kernel queues signals to the process that are ignored, and others have
// calls ended by them.
func (p *Process) preferAgents(tids []int) {
	rank, best := make(map[int]int, len(tids)), 0
	for _, tid := range tids {
		state, filtered := ptrace.StateAndFilter(p.PID, tid)
		switch {
		case state != "S" && state != "R" && state != "D":
			rank[tid] = 6
		case state == "D":
			rank[tid] = 4
		case filtered:
			rank[tid] = 2
		}
		if tid == p.PID {
			rank[tid]++
		}
		if rank[tid] == 0 {
			best++
		}
		if best >= maxAgents || len(rank) > 64 { // enough to choose from
			break
		}
	}
	slices.SortStableFunc(tids, func(a, b int) int { return cmp.Compare(rank[a], rank[b]) })
}

// tryAgent runs f with thread tid as the agent. It reports whether f was run.
func (p *Process) tryAgent(tid int, calls []ptrace.Call, intent specs.Range[specs.Addr], f func(*ptrace.Agent) error) (held time.Duration, done bool, err error) {
	g, err := ptrace.Seize(p.PID, ptrace.Options{Only: []int{tid}, Calls: true})
	if err != nil {
		return 0, false, err
	}
	start := time.Now()
	defer func() { held = time.Since(start) }()
	defer g.Detach()
	if err := g.Stop(); err != nil {
		return 0, false, err
	}
	threads := g.Threads()
	if len(threads) == 0 {
		return 0, false, fmt.Errorf("%w: thread %d has ended", ptrace.ErrUnsuitable, tid)
	}
	if err := threads[0].Permitted(p.PID, calls); err != nil {
		return 0, false, err
	}
	agent, err := g.NewAgent(threads[0], p.mem, codeRanges(p.maps), intent)
	if err != nil {
		return 0, false, err
	}
	err = f(agent)
	return 0, true, errors.Join(err, agent.Close())
}

// codeRanges lists where an agent may find or make a place for its calls: the
// vDSO, then private code of files.
func codeRanges(maps []Mapping) []specs.Range[specs.Addr] {
	var all []specs.Range[specs.Addr]
	for i := range maps {
		m := &maps[i]
		switch {
		case !m.executable() || !m.private() || m.writable() || !m.readable():
		case m.Path == "[vdso]":
			all = slices.Insert(all, 0, m.Range)
		case m.Inode != 0:
			all = append(all, m.Range)
		}
	}
	return all
}

// errTaken means that the range was mapped since the plan was made.
var errTaken = errors.New("the memory is taken")

// protections of the three regions. None is writable and executable.
var protections = [3]uint64{unix.PROT_READ, unix.PROT_READ | unix.PROT_EXEC, unix.PROT_READ | unix.PROT_WRITE}

// perms are the same in /proc/PID/maps.
var perms = [3]string{"r--p", "r-xp", "rw-p"}

// stageAll maps and fills the memory of all steps. After an error nothing of it is
// left. It returns how long a thread was held.
func (p *Process) stageAll(ctx context.Context, steps []*step) (time.Duration, error) {
	var held time.Duration
	for i, s := range steps {
		h, err := time.Duration(0), ctx.Err()
		if err == nil {
			h, err = p.stageOne(ctx, steps, s)
		} else { // a thread would be held for it even so
			err = fmt.Errorf("given up, nothing was changed: %w", err)
		}
		held += h
		if err != nil {
			h, e := p.unstage(ctx, steps[:i])
			return held + h, errors.Join(err, e)
		}
	}
	return held, nil
}

// maxPlaces bounds how often another place is tried.
const maxPlaces = 8

func (p *Process) stageOne(ctx context.Context, steps []*step, s *step) (time.Duration, error) {
	var held time.Duration
	for range maxPlaces {
		h, err := p.withAgent(ctx, s.record.memory(), func(a *ptrace.Agent) error { return p.mapStep(a, s) })
		held += h
		if err == nil {
			if err = p.fill(s); err != nil {
				h, e := p.unstage(ctx, []*step{s})
				return held + h, errors.Join(err, e)
			}
			return held, nil
		}
		if !errors.Is(err, errTaken) {
			return held, fmt.Errorf("%s: memory for the patch: %w", s.object.Path, err)
		}
		if err := p.moveStep(steps, s); err != nil {
			return held, err
		}
	}
	return held, fmt.Errorf("%s: %w: it is taken again and again", s.object.Path, ErrNoMemory)
}

// moveStep finds another place for s after its first one was taken.
func (p *Process) moveStep(steps []*step, s *step) error {
	maps, err := readMaps(p.PID)
	if err != nil {
		return err
	}
	p.maps = maps
	taken := slices.Clone(maps)
	for _, o := range steps {
		taken = append(taken, Mapping{Range: o.record.memory(), Perm: "---p"})
	}
	slices.SortFunc(taken, func(a, b Mapping) int { return compareAddr(a.Range.Lo, b.Range.Lo) })
	base, err := findRoom(taken, s, p.page)
	if err != nil {
		return fmt.Errorf("%s: %w", s.object.Path, err)
	}
	return s.link(p, base)
}

// mapStep maps the three regions. The record goes in between the first and the
// second, so that a run that comes later finds and frees them whatever
// happened.
func (p *Process) mapStep(a *ptrace.Agent, s *step) error {
	const flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED_NOREPLACE
	r := s.record
	for i, prot := range protections {
		m := r.part(i)
		if m.Size() == 0 {
			continue
		}
		at, err := a.Syscall(unix.SYS_MMAP, uint64(m.Lo), m.Size(), prot, flags, ^uint64(0), 0)
		if err == nil && at != uint64(m.Lo) { // a kernel before 4.17 took it as a hint
			_, err = a.Syscall(unix.SYS_MUNMAP, at, m.Size())
			err = cmp.Or(err, error(unix.EEXIST))
		}
		mapped := i
		if err == nil {
			mapped++
		}
		if err == nil && i == 0 {
			err = p.mem.Write(r.Base, s.image.ROData[:s.header])
		}
		if err != nil {
			return mmapError(errors.Join(err, unmapParts(a, r, mapped)))
		}
	}
	// For people who read /proc/PID/maps; kernels that cannot do not matter.
	name := uint64(r.Base) + s.header - uint64(len(memoryName))
	_, _ = a.Syscall(unix.SYS_PRCTL, unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, uint64(r.Base), r.Size, name)
	return nil
}

// unmapParts frees the first n regions, the record last: what cannot be freed is found
// by it.
func unmapParts(a *ptrace.Agent, r *record, n int) error {
	for i := n - 1; i >= 0; i-- {
		if m := r.part(i); m.Size() > 0 {
			if _, err := a.Syscall(unix.SYS_MUNMAP, uint64(m.Lo), m.Size()); err != nil {
				return fmt.Errorf("munmap %v: %w", m, err)
			}
		}
	}
	return nil
}

// memoryName is at the end of the record.
const memoryName = "fother\x00\x00"

// mmapError names the errors of mmap that callers tell apart.
func mmapError(err error) error {
	switch {
	case errors.Is(err, unix.EEXIST):
		return errTaken
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: the process has reached a limit of its own (mmap: %w)", ErrNoMemory, err)
	}
	return fmt.Errorf("mmap: %w", err)
}

// fill writes what the regions hold while the process runs.
func (p *Process) fill(s *step) error {
	parts := [3][]byte{s.image.ROData[s.header:], s.image.Text, s.image.Data}
	for i, b := range parts {
		at := s.record.part(i).Lo
		if i == 0 {
			at += specs.Addr(s.header)
		}
		if err := p.mem.Write(at, b); err != nil {
			return err
		}
	}
	return nil
}

// unstage frees memory that no entry has ever led to.
func (p *Process) unstage(ctx context.Context, steps []*step) (time.Duration, error) {
	records := make([]*record, len(steps))
	for i, s := range steps {
		records[i] = s.record
	}
	return p.unmap(ctx, records)
}

// unmap frees the memory of records. Only what still looks as it was mapped is
// touched: the range may be another's where a run was killed halfway.
func (p *Process) unmap(ctx context.Context, records []*record) (time.Duration, error) {
	if len(records) == 0 {
		return 0, nil
	}
	// It was proved before: a mistake here would end the process.
	for _, r := range records {
		if !p.hooked(r) {
			continue
		}
		if tid, err := p.hookThread(r); err != nil {
			return 0, err
		} else if tid != 0 {
			return 0, &StuckError{TID: tid, Name: ptrace.Comm(p.PID, tid), State: ptrace.State(p.PID, tid)}
		}
	}
	maps, err := readMaps(p.PID)
	if err != nil {
		return 0, err
	}
	return p.withAgent(ctx, specs.Range[specs.Addr]{}, func(a *ptrace.Agent) error {
		for _, r := range records {
			for _, m := range p.freed(maps, r) {
				if _, err := a.Syscall(unix.SYS_MUNMAP, uint64(m.Lo), m.Size()); err != nil {
					return fmt.Errorf("munmap %v: %w", m, err)
				}
			}
			p.records = slices.DeleteFunc(slices.Clone(p.records), func(o *record) bool { return o == r })
		}
		return nil
	})
}

// freed is what is still there of r's pieces, as it is unmapped. The code and the record
// go in one call: code of which no record tells would not be found, and a record without
// code would be overlooked by who looks for code alone. The kernel refuses to free part
// of one mapping if the process may have no more of them, but not parts of two.
func (p *Process) freed(maps []Mapping, r *record) (all []specs.Range[specs.Addr]) {
	for _, m := range p.pieces(r) {
		if m.Size() == 0 || !stillMapped(maps, m.Range, m.perm) {
			continue
		}
		if last := len(all) - 1; last >= 0 && all[last].Lo == m.Hi {
			all[last].Lo = m.Lo
		} else {
			all = append(all, m.Range)
		}
	}
	return all
}

// pieces is the memory that goes when r does, in this order: the blocks of which
// no other record tells, and the record itself last.
func (p *Process) pieces(r *record) []piece {
	var all []piece
	for _, b := range r.blocks() {
		if !p.kept(b, r) {
			all = append(all, piece{b, perms[2]})
		}
	}
	return append(all, r.core()...)
}

// stillMapped reports whether all of r is anonymous memory of the given
// protection.
func stillMapped(maps []Mapping, r specs.Range[specs.Addr], perm string) bool {
	for a := r.Lo; a < r.Hi; {
		m := mappingAt(maps, a)
		if m == nil || m.Perm != perm || !m.anonymous() {
			return false
		}
		a = m.Range.Hi
	}
	return true
}
