package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// plain is a kind of store whose files are replaced without condition.
type plain interface {
	opener
	// get returns a file of at most max bytes.
	get(ctx context.Context, name string, max int64) ([]byte, error)
	// put leaves a whole file or none. If there should be none of that name,
	// fresh says so: servers that know conditions then fail with ErrRaced.
	put(ctx context.Context, name string, data []byte, fresh bool) error
}

// turns is a store of which each publisher has its turn, while it holds a lock
// object. Nobody's clock matters: a lock is stale when one has looked at it for
// as long as it holds, and it has not changed.
//
// The lock is taken as in Fischer's algorithm: who finds none writes one with
// its own name within the time settle, waits for as long, and has it if it is
// still there; whoever found none too has written over it by then.
type turns struct {
	*transport
	files plain
	owner string

	hold   time.Duration // how long a lock holds that is not renewed
	settle time.Duration // how long until all who found no lock have written theirs
	tries  int           // how often this process may be late, or the server fail

	turn chan struct{} // has one element while this process has no turn

	mu   sync.Mutex
	held *lease // nil if this process has no turn
}

const (
	// lockObject is where the lock is.
	lockObject = "lock.json"

	// maxHold bounds how long others may ask to be waited for.
	maxHold = 10 * time.Minute
	maxLock = 4 << 10
	// unlockTime bounds the time for giving the lock back.
	unlockTime = 10 * time.Second
)

// How long a lock holds, how long until one is sure of it, and how often one may
// be late for it; tests have less time, and are late more often.
var (
	turnHold   = time.Minute
	turnSettle = 3 * time.Second
	turnLate   = 5
)

// lockRecord is the content of the lock object.
type lockRecord struct {
	// Owner is the publisher, "" if none.
	Owner string `json:"owner"`
	// Seconds is how long the lock holds if the object does not change.
	Seconds float64 `json:"seconds"`
	// Renewed counts the renewals.
	Renewed int `json:"renewed"`
}

// lease is the time in which this process has its turn.
type lease struct {
	ctx    context.Context // done when the lock is lost, or soon will be
	cancel context.CancelCauseFunc
	timer  *time.Timer
	done   chan struct{} // closed when nothing renews it any more
}

func newTurns(t *transport, files plain) *turns {
	host, _ := os.Hostname()
	s := &turns{
		transport: t, files: files, hold: turnHold, settle: turnSettle, tries: turnLate, turn: make(chan struct{}, 1),
		owner: fmt.Sprintf("%s process %d %s", host, os.Getpid(), strings.ToLower(rand.Text()[:8])),
	}
	s.turn <- struct{}{}
	return s
}

func (s *turns) lock(ctx context.Context) (func(), error) {
	select {
	case <-ctx.Done():
		return nil, fail(ErrUnreachable, lockObject, "another publisher holds the registry: %w", ctx.Err())
	case <-s.turn:
	}
	began, err := s.take(ctx)
	if err != nil {
		s.turn <- struct{}{}
		return nil, err
	}
	l := s.begin(context.WithoutCancel(ctx), began)
	s.mu.Lock()
	s.held = l
	s.mu.Unlock()
	return func() {
		s.release(context.WithoutCancel(ctx), l)
		s.turn <- struct{}{}
	}, nil
}

// take writes the lock object when it is this process's turn. It returns when
// that began.
func (s *turns) take(ctx context.Context) (time.Time, error) {
	var last lockRecord
	var since time.Time // when last was seen first
	var trouble error
	for late := 0; late < s.tries; {
		began := time.Now()
		now, there, err := s.look(ctx)
		if err == nil && now != last {
			last, since = now, time.Now()
		}
		if err == nil && now.Owner != "" && now.Owner != s.owner && time.Since(since) < now.holds() {
			if err := s.pause(ctx, now); err != nil {
				return began, err
			}
			continue
		}
		took := false
		if err == nil {
			took, err = s.claim(ctx, began, !there)
		}
		if took || err != nil && !passing(err) {
			return began, err
		}
		if trouble = err; err != nil {
			late++
			time.Sleep(min(s.settle/4, time.Second))
		}
	}
	return time.Time{}, trouble
}

// passing reports whether an error may be gone at the next try: some OCI
// registries answer 500 while two write the same tag.
func passing(err error) bool {
	var status *statusError
	return errors.Is(err, errLate) || errors.As(err, &status) && status.code >= http.StatusInternalServerError && !errors.Is(err, ErrFull)
}

// errLate means that the lock was not written in the time in which others
// expect that.
var errLate = errors.New("the store takes too long for a small file: publishers could not be kept apart")

// pause waits before one looks at another's lock again.
func (s *turns) pause(ctx context.Context, other lockRecord) error {
	select {
	case <-ctx.Done():
		return fail(ErrUnreachable, lockObject, "another publisher holds the registry (%.80q): %w", other.Owner, ctx.Err())
	case <-time.After(min(s.settle/2, other.holds()/4)):
		return nil
	}
}

// claim writes the lock object, and reports whether it is still there when all
// others that may have written theirs have done so.
func (s *turns) claim(ctx context.Context, began time.Time, fresh bool) (bool, error) {
	soon, cancel := context.WithDeadline(ctx, began.Add(s.settle))
	defer cancel()
	err := s.writeLock(soon, lockRecord{s.owner, s.hold.Seconds(), 0}, fresh)
	switch {
	case errors.Is(err, ErrRaced):
		return false, nil
	case soon.Err() != nil && ctx.Err() == nil:
		return false, &Error{ErrUnreachable, lockObject, errLate}
	case err != nil:
		return false, err
	}
	select {
	case <-ctx.Done():
		return false, fail(ErrUnreachable, lockObject, "%w", ctx.Err())
	case <-time.After(s.settle):
	}
	now, _, err := s.look(ctx)
	return err == nil && now.Owner == s.owner, err
}

func (r lockRecord) holds() time.Duration {
	return time.Duration(min(max(r.Seconds, 0), maxHold.Seconds()) * float64(time.Second))
}

// look returns the lock object, and whether there is one. One that cannot be
// understood is somebody's.
func (s *turns) look(ctx context.Context) (r lockRecord, there bool, err error) {
	data, err := s.files.get(ctx, lockObject, maxLock)
	if errors.Is(err, ErrNotFound) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	if json.Unmarshal(data, &r) != nil {
		r = lockRecord{Owner: fmt.Sprintf("%.40q", data), Seconds: turnHold.Seconds()}
	}
	return r, true, nil
}

func (s *turns) writeLock(ctx context.Context, r lockRecord, fresh bool) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.files.put(ctx, lockObject, append(data, '\n'), fresh)
}

// begin starts to renew the lock that was taken when began had not passed.
func (s *turns) begin(ctx context.Context, began time.Time) *lease {
	l := &lease{done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.timer = time.AfterFunc(time.Until(s.end(began)), func() {
		l.cancel(fail(ErrRaced, lockObject, "the lock was not renewed in time"))
	})
	go s.renew(l)
	return l
}

// end is when nothing may be written any more, well before others take a lock
// that was written at began or later.
func (s *turns) end(began time.Time) time.Time { return began.Add(s.hold * 3 / 4) }

func (s *turns) renew(l *lease) {
	defer close(l.done)
	for n := 1; ; n++ {
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(s.hold / 4):
		}
		began := time.Now()
		now, _, err := s.look(l.ctx)
		if err == nil && now.Owner != s.owner {
			l.cancel(fail(ErrRaced, lockObject, "another publisher has taken the lock"))
			return
		}
		if err == nil && s.writeLock(l.ctx, lockRecord{s.owner, s.hold.Seconds(), n}, false) == nil && l.ctx.Err() == nil {
			l.timer.Reset(time.Until(s.end(began)))
		}
	}
}

// release gives the lock back, if it is still this process's.
func (s *turns) release(ctx context.Context, l *lease) {
	s.mu.Lock()
	s.held = nil
	s.mu.Unlock()
	mine := l.ctx.Err() == nil
	l.cancel(nil)
	l.timer.Stop()
	<-l.done
	if !mine {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(unlockTime, s.hold/8))
	defer cancel()
	if now, _, err := s.look(ctx); err == nil && now.Owner == s.owner {
		_ = s.writeLock(ctx, lockRecord{}, false)
	}
}

// during calls do with a context that ends with the lock.
func (s *turns) during(ctx context.Context, do func(ctx context.Context) error) error {
	s.mu.Lock()
	l := s.held
	s.mu.Unlock()
	if l == nil {
		return fail(ErrRaced, lockObject, "no lock is held")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })()
	err := do(ctx)
	if err != nil && l.ctx.Err() != nil {
		return context.Cause(l.ctx)
	}
	return err
}

func (s *turns) write(ctx context.Context, name string, data []byte) error {
	return s.during(ctx, func(ctx context.Context) error { return s.files.put(ctx, name, data, false) })
}

// create looks first: what is there may be of a publisher that lost its lock
// and does not know it yet.
func (s *turns) create(ctx context.Context, name string, data []byte) error {
	return s.during(ctx, func(ctx context.Context) error {
		there, err := s.files.get(ctx, name, int64(len(data)))
		switch {
		case errors.Is(err, ErrNotFound):
			err = s.files.put(ctx, name, data, true)
		case err == nil && bytes.Equal(there, data):
			return nil
		case err == nil || errors.Is(err, ErrTooLarge):
			return &Error{ErrTaken, name, nil}
		}
		if errors.Is(err, ErrRaced) {
			return &Error{ErrTaken, name, err}
		}
		return err
	})
}

// commit reads back what it has written.
func (s *turns) commit(ctx context.Context, name string, old, data []byte) error {
	return s.during(ctx, func(ctx context.Context) error {
		if lock, _, err := s.look(ctx); err != nil {
			return err
		} else if lock.Owner != s.owner {
			return fail(ErrRaced, lockObject, "another publisher has taken the lock")
		}
		now, err := s.files.get(ctx, name, maxCommitted)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if !bytes.Equal(now, old) {
			return &Error{ErrRaced, name, nil}
		}
		if err := s.files.put(ctx, name, data, now == nil); err != nil {
			return err
		}
		now, err = s.files.get(ctx, name, maxCommitted)
		if err == nil && !bytes.Equal(now, data) {
			return &Error{ErrRaced, name, nil}
		}
		return err
	})
}
