package apply

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
)

// whileObjectsChange calls f again if what it had found in the process was not
// there any more when it was to be changed: a library was closed, or opened anew,
// in between. Then nothing was written, or it was taken back, or the next try
// finishes it. What is found changed for another reason is so each time.
func whileObjectsChange(ctx context.Context, f func() (*Result, error)) (*Result, error) {
	const tries, pause = 4, 3 * time.Millisecond
	for try := 1; ; try++ {
		res, err := f()
		mismatch := (*MismatchError)(nil)
		if try == tries || !errors.As(err, &mismatch) && !errors.Is(err, unix.EIO) || ctx.Err() != nil {
			return res, err
		}
		time.Sleep(pause)
	}
}

// orGone returns ErrGone for whatever failed because the process has ended
// meanwhile: what is read of a process that is ending may be anything.
func orGone(pid int, err error) error {
	if err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrHeadless) {
		return err
	}
	if _, e := readMaps(pid); errors.Is(e, ErrGone) {
		return ErrGone
	}
	return err
}

// orHeadless returns ErrHeadless instead of ErrGone for a process of which only
// the first thread has ended. One that ends has such moments, too.
func orHeadless(pid int, err error) error {
	const looks, nap = 3, 5 * time.Millisecond
	for range looks {
		if !errors.Is(err, ErrGone) || stand(pid) == 0 {
			return err
		}
		time.Sleep(nap)
	}
	return ErrHeadless
}

// stand returns a thread that stands for the first one, which has ended: the process's
// memory shows in its folder in /proc. It is 0 if there is none.
func stand(pid int) int {
	if ptrace.State(pid, pid) != "Z" {
		return 0
	}
	tids, _ := ptrace.Threads(pid)
	for _, tid := range tids {
		// Each thread has a folder beside those of the processes.
		if maps, err := readMaps(tid); tid != pid && err == nil && len(maps) > 0 {
			return tid
		}
	}
	return 0
}

// orGone is like the function of that name, for a process that is open, and may execute
// another program too: while that begins, its threads end one after the other, and
// those that do can neither be stopped nor traced.
func (p *Process) orGone(err error) error {
	const nap = time.Millisecond
	patience := 50 * time.Millisecond
	stuck := (*StuckError)(nil)
	ending := errors.As(err, &stuck) && stuck.State != "D" || errors.Is(err, ErrPermission)
	if errors.Is(err, ptrace.ErrUnsuitable) { // it ended while it made calls: the others are about to
		ending, patience = true, time.Second
	}
	for end := time.Now().Add(patience); ; time.Sleep(nap) {
		if err == nil || errors.Is(err, ErrGone) {
			return err
		}
		if p.replaced() {
			return ErrGone
		}
		if !ending || time.Now().After(end) {
			return orGone(p.PID, err)
		}
	}
}

// replaced reports whether the memory that was opened is no longer that of a
// process.
func (p *Process) replaced() bool {
	i := slices.IndexFunc(p.maps, func(m Mapping) bool { return m.readable() && m.Inode != 0 })
	if i < 0 {
		return false
	}
	_, err := p.mem.Read(p.maps[i].Range.Lo, 1)
	return errors.Is(err, ErrGone)
}
