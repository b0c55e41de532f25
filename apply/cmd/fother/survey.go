package main

import (
	"context"
	"iter"
	"runtime"
	"slices"

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
	return ahead(ctx, pids, t.read)
}

// chunk is how many processes are read one after the other, so that few threads
// have to be woken.
const chunk = 8

// ahead calls read for processes, for several at once, and yields what it returns
// in the given order. It ends early if ctx does.
func ahead[T any](ctx context.Context, pids []int, read func(context.Context, int) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		workers := min(runtime.NumCPU(), 8)
		// What is read waits here for its turn: no more than two chunks for each worker.
		queue := make(chan chan []T, 2*workers)
		tokens := make(chan struct{}, workers)
		go func() {
			defer close(queue)
			for some := range slices.Chunk(pids, chunk) {
				turn := make(chan []T, 1)
				select {
				case queue <- turn:
				case <-ctx.Done():
					return
				}
				tokens <- struct{}{}
				go func() {
					all := make([]T, len(some))
					for i, pid := range some {
						all[i] = read(ctx, pid)
					}
					turn <- all
					<-tokens
				}()
			}
		}()
		for turn := range queue {
			for _, one := range <-turn {
				if ctx.Err() != nil || !yield(one) {
					return
				}
			}
		}
	}
}

// read returns what there is to say of a process.
func (t *tool) read(ctx context.Context, pid int) surveyed {
	s, err := t.opener.Summary(ctx, pid)
	if err != nil {
		return surveyed{processInfo{PID: pid, Objects: []objectInfo{}, Applied: []apply.Applied{}}, err}
	}
	i := processInfo{PID: pid, Name: s.Name, Objects: make([]objectInfo, 0, len(s.Objects)), Applied: s.Applied, Damaged: s.Damaged, Headless: s.Headless}
	for _, o := range s.Objects {
		i.Objects = append(i.Objects, objectInfo{ObjectInfo: o})
	}
	return surveyed{i, nil}
}
