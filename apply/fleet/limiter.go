package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fother/fother/apply"
)

// Bounds on the time that work on one process may take. Memory that a process
// serves itself (userfaultfd, FUSE) can block for good who reads it.
const (
	// ReadLimit is for reading it.
	ReadLimit = 5 * time.Second
	// MaxSilent is the number of processes of one user that may use their time
	// up; the others of that user are then left out.
	MaxSilent = 4

	applyLimit = time.Minute
	applyGrace = 10 * time.Second
)

var (
	// ErrSilent means that work on a process did not end in its time.
	ErrSilent = errors.New("the process does not answer")
	// ErrLeftOut means that a process was not looked at, since others of its
	// user have used up the user's time. An error of one of these has told so.
	ErrLeftOut = errors.New("left out: too many processes of its user do not answer in time")
)

// Bound is the time that one piece of work may take.
type Bound struct {
	Limit time.Duration // until its context ends
	Grace time.Duration // after that, to undo what it has done
}

// Reading is the bound for reading a process.
func Reading() Bound { return Bound{Limit: ReadLimit} }

// Patching is the bound for changing a process, where threads are waited for
// as [apply.Options] say: once to finish an earlier run's work, once for this.
func Patching(wait time.Duration) Bound {
	return Bound{Limit: applyLimit + 2*max(wait, 0), Grace: applyGrace}
}

// Limiter bounds what processes can make a run wait for, each and all of a
// user's together. Root's own are bounded each: what they do with root's time
// is root's affair. It may be used by several goroutines.
type Limiter struct {
	// Budget is the time that work on all processes of one user may take; when
	// it is used up no other work begins. 0 is without end.
	Budget time.Duration

	owner func(pid int) (uid int, err error)
	mu    sync.Mutex
	users map[int]*usage
	left  map[int]bool // by process
	// silence is set once a process was silent.
	silence bool
	// work is for goroutines that have done some; nil if none waits for more.
	work chan func()
}

// usage is what the processes of one user have used up.
type usage struct {
	silent int
	time   time.Duration
	told   bool // that the others are left out
}

// NewLimiter returns a limiter without a budget.
func NewLimiter() *Limiter {
	return &Limiter{owner: owner, users: make(map[int]*usage), left: make(map[int]bool)}
}

// Reuse has goroutines that have done their work wait for more, for a second. It is for
// who looks at many processes, and is called before any other method.
func (l *Limiter) Reuse() { l.work = make(chan func()) }

// LeftOut is the number of processes that were left out.
func (l *Limiter) LeftOut() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.left)
}

// Do calls f, whose work is on one process, and gives it up at its bound: a
// read of another process's memory cannot be interrupted. What is given up goes
// on until the read or the tool ends; what it returns then is closed, if it has
// a method Close.
//
// Errors: those of f, [apply.ErrGone], [apply.ErrPermission], [ErrSilent],
// [ErrLeftOut], the cause if ctx ends.
func Do[T any](ctx context.Context, l *Limiter, pid int, b Bound, f func(context.Context) (T, error)) (T, error) {
	uid := unknownUser
	if l.careful() {
		var err error
		if uid, err = l.owner(pid); err == nil {
			err = l.admit(pid, uid)
		}
		if err != nil {
			var none T
			return none, err
		}
	}
	start := time.Now()
	v, err := within(ctx, l, b, f)
	if uid == unknownUser && errors.Is(err, ErrSilent) {
		uid = l.ownerOfSilent(pid)
	}
	return v, l.charge(uid, time.Since(start), err)
}

// unknownUser stands for a user that was not asked for.
const unknownUser = -1

// careful reports whether it matters whose a process is: users have a budget, or
// a process was silent. Else it is not worth a read for each process.
func (l *Limiter) careful() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Budget > 0 || l.silence
}

// ownerOfSilent returns the user of the first process that was silent, or
// unknownUser if it has ended. From then on owners are asked for before the work,
// so none can get away with that again.
func (l *Limiter) ownerOfSilent(pid int) int {
	l.mu.Lock()
	l.silence = true
	l.mu.Unlock()
	uid, err := l.owner(pid)
	if err != nil {
		return unknownUser
	}
	return uid
}

// admit returns an error if the user's time is used up.
func (l *Limiter) admit(pid, uid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.users[uid]
	switch {
	case uid == 0 || u == nil:
		return nil
	case u.silent >= MaxSilent:
	case l.Budget > 0 && u.time >= l.Budget:
		if !u.told {
			u.told, l.left[pid] = true, true
			return fmt.Errorf("left out, as are others of user %d: work on the user's processes has taken %v", uid, u.time.Round(time.Second))
		}
	default:
		return nil
	}
	l.left[pid] = true
	return ErrLeftOut
}

// charge counts a piece of work that ended with err, and returns the error to
// tell.
func (l *Limiter) charge(uid int, took time.Duration, err error) error {
	if uid == 0 || uid == unknownUser {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.users[uid]
	if u == nil {
		u = new(usage)
		l.users[uid] = u
	}
	u.time += took
	if errors.Is(err, ErrSilent) {
		if u.silent++; u.silent >= MaxSilent && !u.told {
			u.told = true
			err = fmt.Errorf("%w; the other processes of user %d are left out", err, uid)
		}
	}
	return err
}

type outcome[T any] struct {
	v   T
	err error
}

// within calls f with a context that ends at the limit, and waits for it until
// grace after that.
func within[T any](ctx context.Context, l *Limiter, b Bound, f func(context.Context) (T, error)) (T, error) {
	work, cancel := context.WithTimeout(ctx, b.Limit)
	defer cancel()
	done, late := make(chan outcome[T]), make(chan struct{})
	l.beside(func() {
		v, err := f(work)
		select {
		case done <- outcome[T]{v, err}:
		case <-late:
			if c, ok := any(v).(interface{ Close() }); ok && err == nil {
				c.Close()
			}
		}
	})
	select {
	case r := <-done:
		return r.v, r.err
	case <-work.Done():
	}
	grace := time.NewTimer(b.Grace)
	defer grace.Stop()
	select {
	case r := <-done:
		if errors.Is(r.err, context.DeadlineExceeded) && ctx.Err() == nil {
			r.err = fmt.Errorf("%w for %v: %w", ErrSilent, b.Limit, r.err)
		}
		return r.v, r.err
	case <-grace.C:
	}
	close(late)
	var none T
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("interrupted: %w", err)
	}
	return none, fmt.Errorf("%w for %v", ErrSilent, b.Limit+b.Grace)
}

// idleTime is how long a goroutine waits for more work.
const idleTime = time.Second

// beside calls f in another goroutine: one that has done such work, if it waits for
// more. Its stack has grown already, as a new one's would have to for each process.
func (l *Limiter) beside(f func()) {
	select {
	case l.work <- f:
		return
	default:
	}
	if l.work == nil {
		go f()
		return
	}
	go func() {
		for timer := time.NewTimer(idleTime); ; timer.Reset(idleTime) {
			f()
			select {
			case f = <-l.work:
			case <-timer.C:
				return
			}
		}
	}()
}

// owner returns the real user of a process. The owner of its folder in /proc
// is not that: it is root for what is not dumpable, which a process can say of
// itself.
func owner(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	switch {
	case errors.Is(err, os.ErrPermission): // /proc is mounted with hidepid
		return 0, apply.ErrPermission
	case err != nil:
		return 0, apply.ErrGone
	}
	for line := range strings.Lines(string(b)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			if f := strings.Fields(ids); len(f) > 0 {
				return strconv.Atoi(f[0])
			}
		}
	}
	return 0, fmt.Errorf("process %d: /proc/%d/status: names no user", pid, pid)
}
