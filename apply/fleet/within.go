package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrSilent means that work on a process did not end in the time that it may
// take.
var ErrSilent = errors.New("the process does not answer")

// within calls f and gives it up, with [ErrSilent], if it has not returned
// grace after the limit, when its context ends: a read of another process's
// memory cannot be interrupted. What is given up goes on in a goroutine of its own until the
// read or the tool ends.
func within[T any](ctx context.Context, limit, grace time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		v   T
		err error
	}
	c := make(chan result, 1)
	go func() {
		v, err := f(ctx)
		c <- result{v, err}
	}()
	select {
	case r := <-c:
		return r.v, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-c:
		return r.v, r.err
	case <-time.After(grace):
		var none T
		return none, fmt.Errorf("%w for %v", ErrSilent, limit+grace)
	}
}
