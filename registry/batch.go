package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// parallel bounds requests that are under way at once.
const parallel = 8

// maxTold bounds how many failures of a batch its error tells.
const maxTold = 3

// batch loads files side by side. One that fails does not stop the others, but
// a store that has not answered for parallel of them is asked for no more:
// what is in the cache is still loaded.
type batch struct {
	giveUp context.CancelFunc // ends the context that the loads are given
	group  errgroup.Group

	mu      sync.Mutex // guards the rest
	failed  []failure
	silent  int // how many failures were for want of an answer
	skipped int // how many were not asked for then
}

type failure struct {
	name string
	err  error
}

func newBatch(giveUp context.CancelFunc) *batch {
	b := &batch{giveUp: giveUp}
	b.group.SetLimit(parallel)
	return b
}

// run loads the file name, once there is room.
func (b *batch) run(name string, load func() error) {
	b.group.Go(func() error {
		if err := load(); err != nil {
			b.note(failure{name, err})
		}
		return nil
	})
}

func (b *batch) note(f failure) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.silent >= parallel && errors.Is(f.err, context.Canceled) {
		b.skipped++
		return
	}
	b.failed = append(b.failed, f)
	if errors.Is(f.err, ErrUnreachable) {
		b.silent++
	}
	if b.silent >= parallel {
		b.giveUp()
	}
}

// wait returns, when all that was begun has ended, what failed, sorted by name;
// of many failures the first. More may be run after it.
func (b *batch) wait() error {
	_ = b.group.Wait()
	slices.SortFunc(b.failed, func(x, y failure) int { return cmp.Compare(x.name, y.name) })
	var errs []error
	for _, f := range b.failed[:min(len(b.failed), maxTold)] {
		errs = append(errs, f.err)
	}
	if more := len(b.failed) - len(errs) + b.skipped; more > 0 {
		errs = append(errs, fmt.Errorf("and %d more files", more))
	}
	return errors.Join(errs...)
}
