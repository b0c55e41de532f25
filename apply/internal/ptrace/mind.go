package ptrace

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// crashes are the signals by which a thread tells that it cannot go on.
var crashes = map[unix.Signal]bool{
	unix.SIGILL: true, unix.SIGTRAP: true, unix.SIGABRT: true, unix.SIGBUS: true, unix.SIGFPE: true, unix.SIGSEGV: true, unix.SIGSYS: true,
}

// Mind lets the group's only thread run until it has ended, until enough says so, or until
// it crashes: then it is stopped before the process hears of it, and the signal
// is returned.
//
// Errors: those of enough; [ErrGone].
func (g *Group) Mind(enough func() (bool, error)) (unix.Signal, error) {
	const first, longest = 20 * time.Microsecond, time.Millisecond
	t := g.threads[0]
	for nap := first; !t.gone; {
		ws, got, err := poll(t.TID)
		switch {
		case err != nil, got && !ws.Stopped():
			t.gone = true
			return 0, nil
		case got && ws>>16 == 0 && crashes[ws.StopSignal()]:
			t.stopped = true
			return ws.StopSignal(), nil
		case got && int(ws>>16)&0xff == unix.PTRACE_EVENT_STOP && ws.StopSignal() != unix.SIGTRAP:
			_ = request(unix.PTRACE_LISTEN, t.TID, 0, 0) // job control has stopped the process
			continue
		case got:
			if err := g.stopEvent(t, ws); err != nil {
				return 0, err
			}
			g.ResumeThread(t)
			continue
		}
		if done, err := enough(); done || err != nil {
			return 0, err
		}
		time.Sleep(nap)
		nap = min(2*nap, longest)
	}
	return 0, nil
}

// Divert stops the group's only thread and makes it go on at an address when it is
// let go. It reports false if the thread has ended.
func (g *Group) Divert(to specs.Addr) (bool, error) {
	t := g.threads[0]
	if err := g.StopThread(t); err != nil || !t.Stopped() {
		return false, err
	}
	if !t.fresh {
		if err := g.readThread(t); err != nil {
			return false, err
		}
	}
	t.Regs.divert(to)
	if err := t.Regs.set(t.TID); err != nil {
		return false, g.lost(t, err)
	}
	return true, nil
}

// Filtered reports whether any thread of a process has a seccomp filter.
func Filtered(pid int) bool {
	tids, _ := Threads(pid)
	return slices.ContainsFunc(tids, func(tid int) bool {
		mode, _ := statusField(pid, tid, "Seccomp")
		return mode != 0
	})
}

// Innermost returns the thread of a process that has an id in its own
// namespace, or 0. Source: proc_pid_status(5), NSpid.
func Innermost(pid, own int) (int, error) {
	tids, err := Threads(pid)
	if err != nil {
		return 0, err
	}
	for _, tid := range tids {
		if State(pid, tid) == "X" || State(pid, tid) == "Z" {
			continue
		}
		for line := range bytes.Lines(taskFile(pid, tid, "status")) {
			if rest, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
				ids := bytes.Fields(rest)
				if n, err := strconv.Atoi(string(ids[len(ids)-1])); err == nil && n == own {
					return tid, nil
				}
			}
		}
	}
	return 0, nil
}
