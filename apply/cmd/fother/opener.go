package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/fother/fother/apply"
)

// Bounds on what processes can make the tool wait for. Memory that a process
// serves itself (userfaultfd, FUSE) can block who reads it for good.
const (
	// openLimit is the time that reading one process may take.
	openLimit = 5 * time.Second
	// maxSilent is the number of processes of one user that may use it up; the
	// user's others are then left out.
	maxSilent = 4
)

// silentError means that a process could not be read in time.
type silentError struct{ limit time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("reading it takes more than %v", e.limit)
}

// Hint says what such processes are.
func (e *silentError) Hint() string {
	return "the process is stuck in the kernel, or serves its own memory by userfaultfd or FUSE and does not answer"
}

// errLeftOut means that too many other processes of the user were silent.
var errLeftOut = errors.New("left out: too many processes of this user cannot be read in time")

// opener opens processes for reading, each within a limit of time. It may be
// used by several goroutines.
type opener struct {
	open  func(pid int) (*apply.Process, error)
	limit time.Duration

	mu     sync.Mutex
	silent map[uint32]int // processes, by user
	left   int            // processes that were left out
}

func newOpener() *opener {
	return &opener{open: apply.Open, limit: openLimit, silent: make(map[uint32]int)}
}

// passOver reports whether an error of Open is no news where all processes are
// meant: the process is gone, not the caller's, or counted already.
func passOver(err error) bool {
	return errors.Is(err, apply.ErrGone) || errors.Is(err, apply.ErrPermission) || errors.Is(err, errLeftOut)
}

// noteLeftOut tells how many processes were left out.
func (t *tool) noteLeftOut() {
	if n := t.opener.left; n > 0 {
		t.note("%s left out: %d of their users' others could not be read in time", count(n, "process"), maxSilent)
	}
}

// Open is [apply.Open] within the limit. What comes later is closed.
//
// Errors: those of apply.Open, [*silentError], errLeftOut.
func (o *opener) Open(ctx context.Context, pid int) (*apply.Process, error) {
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return nil, apply.ErrGone
	}
	uid := info.Sys().(*syscall.Stat_t).Uid
	o.mu.Lock()
	full := o.silent[uid] >= maxSilent
	if full {
		o.left++
	}
	o.mu.Unlock()
	if full {
		return nil, errLeftOut
	}
	type opened struct {
		p   *apply.Process
		err error
	}
	done := make(chan opened)
	timer := time.NewTimer(o.limit)
	defer timer.Stop()
	late := make(chan struct{})
	go func() {
		p, err := o.open(pid)
		select {
		case done <- opened{p, err}:
		case <-late:
			if err == nil {
				p.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.p, r.err
	case <-timer.C:
		err = &silentError{o.limit}
		o.mu.Lock()
		o.silent[uid]++
		o.mu.Unlock()
	case <-ctx.Done():
		err = fmt.Errorf("interrupted: %w", ctx.Err())
	}
	close(late)
	return nil, err
}
