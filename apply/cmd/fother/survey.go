package main

import (
	"context"
	"iter"
	"runtime"

	"github.com/fother/fother/apply"
)

// surveyed is what was read of one process.
type surveyed struct {
	processInfo
	err error
}

// survey reads processes, several at once, and yields them in the given order.
// It ends early if ctx does.
func (t *tool) survey(ctx context.Context, pids []int) iter.Seq[surveyed] {
	return func(yield func(surveyed) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		workers := min(runtime.NumCPU(), 8, len(pids))
		// What is read waits here for its turn: no more than two for each worker.
		queue := make(chan chan surveyed, 2*workers)
		tokens := make(chan struct{}, max(workers, 1))
		go func() {
			defer close(queue)
			for _, pid := range pids {
				turn := make(chan surveyed, 1)
				select {
				case queue <- turn:
				case <-ctx.Done():
					return
				}
				tokens <- struct{}{}
				go func() {
					turn <- t.read(ctx, pid)
					<-tokens
				}()
			}
		}()
		for turn := range queue {
			if s := <-turn; ctx.Err() != nil || !yield(s) {
				return
			}
		}
	}
}

// read returns what there is to say of a process.
func (t *tool) read(ctx context.Context, pid int) surveyed {
	p, err := t.opener.Open(ctx, pid)
	if err != nil {
		return surveyed{processInfo{PID: pid, Objects: []objectInfo{}, Applied: []apply.Applied{}}, err}
	}
	defer p.Close()
	i := processInfo{PID: pid, Name: p.Name, Objects: []objectInfo{}, Applied: p.Applied(), Damaged: p.Damaged()}
	for _, o := range p.Objects() {
		i.Objects = append(i.Objects, objectInfo{ObjectInfo: o})
	}
	return surveyed{i, nil}
}
