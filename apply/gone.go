package apply

import (
	"context"
	"errors"
	"io"
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
		if !errors.Is(err, ErrGone) {
			return err
		}
		readable := func(tid int) error { _, e := readMapsBy(pid, tid); return e }
		if e := byStandIn(pid, readable); errors.Is(e, ErrGone) {
			return err
		}
		time.Sleep(nap)
	}
	return ErrHeadless
}

// byStandIn calls f with threads that stand for the first one, which has ended, until
// it does not return ErrGone: the process's memory shows in their folders in /proc.
// They may end meanwhile too, and begin others, as long as the process runs.
//
// Errors: [ErrGone] if the process has ended, those of f.
func byStandIn(pid int, f func(tid int) error) error {
	const rounds, each = 32, 8
	for round := range rounds {
		if !headless(pid) {
			break
		}
		tids, _ := ptrace.Threads(pid) // in which one that has just begun may be missing
		if round%2 > 0 {
			slices.Reverse(tids) // the oldest may have been ending for long
		}
		tids = slices.DeleteFunc(tids, func(tid int) bool { return tid == pid })
		for _, tid := range tids[:min(len(tids), each)] {
			if err := f(tid); !errors.Is(err, ErrGone) {
				return err
			}
		}
	}
	return ErrGone
}

// headless reports whether the first thread of a process has ended, and others are there.
func headless(pid int) bool {
	n, ok := taskCount(pid)
	return ok && n > 1 && ptrace.State(pid, pid) == "Z"
}

// taskCount returns how many threads a process has, the first one included if it has
// ended: the links of their folder are as many, and two. Source: fs/proc/base.c,
// proc_task_getattr.
func taskCount(pid int) (n int, ok bool) {
	var task unix.Stat_t
	err := unix.Stat(ptrace.Folder(pid, pid)+"/task", &task)
	return int(task.Nlink) - 2, err == nil
}

// openMem opens the process's memory. If its first thread has ended, that stays open
// when the one that stands in ends, too.
func (p *Process) openMem(writable bool) (err error) {
	if p.via == p.PID {
		p.mem, err = ptrace.OpenMem(p.PID, writable)
		return err
	}
	if p.mem, err = ptrace.OpenStandIn(p.PID, p.via); err != nil {
		return err
	}
	var aux [4096]byte
	n, err := ptrace.ReadStart(auxFile(p.PID, p.via), aux[:])
	if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
		return ErrGone // the thread is ending, and has no memory any more
	}
	p.aux = slices.Clone(aux[:n])
	return procError(err)
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
