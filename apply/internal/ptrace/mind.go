package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
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

// Filtered reports whether any thread of a process has a seccomp filter. What
// cannot be read counts as one.
func Filtered(pid int) bool {
	tids, err := Threads(pid)
	return err != nil || slices.ContainsFunc(tids, func(tid int) bool { return filtered(readStatus(pid, tid)) })
}

// StateAndFilter returns the state letter of a thread, "X" if it is gone, and whether
// it has a seccomp filter.
func StateAndFilter(pid, tid int) (state string, hasFilter bool) {
	status, err := readStatus(pid, tid)
	if state, _ = field(status, "State"); state == "" {
		return "X", filtered(status, err)
	}
	return state[:1], filtered(status, err)
}

// filtered is Filtered for what was read of one thread's status file. Source:
// proc_pid_status(5); a kernel without seccomp has no such field.
func filtered(status []byte, err error) bool {
	if gone(err) {
		return false
	}
	mode, there := field(status, "Seccomp")
	return err != nil || len(status) == 0 || there && mode != "0"
}

// readStatus reads a thread's status file.
func readStatus(pid, tid int) ([]byte, error) {
	return os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", pid, tid))
}

// gone reports whether an error of a read in /proc says that the thread is.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// field returns a field of a status file.
func field(status []byte, name string) (string, bool) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			return string(bytes.TrimSpace(rest)), true
		}
	}
	return "", false
}

// ErrUnsettled means that threads come and go so fast that it cannot be told
// whether one is among them.
var ErrUnsettled = errors.New("the process's threads cannot be listed, so fast do they come and go")

// Innermost returns the thread of a process that has an id in its own
// namespace, or 0 if there is certainly none. guess is looked at first, if it is
// not 0. A listing leaves threads out while others end, so it takes two that
// agree with each other, and with the kernel's count, to tell that there is none.
//
// Errors: [ErrUnsettled], [ErrGone].
func Innermost(pid, own, guess int) (int, error) {
	const tries = 20
	if guess != 0 {
		if is, err := known(pid, guess, own); is || err != nil {
			return guess, err
		}
	}
	var last []int
	for range tries {
		tids, err := Threads(pid)
		if err != nil {
			return 0, err
		}
		for _, tid := range tids {
			if slices.Contains(last, tid) {
				continue // looked at already
			}
			if is, err := known(pid, tid, own); is || err != nil {
				return tid, err
			}
		}
		if n, ok := statusField(pid, pid, "Threads"); ok && n == len(tids) && slices.Equal(tids, last) {
			return 0, nil
		}
		last = tids
	}
	return 0, ErrUnsettled
}

// known reports whether a thread lives and has an id in its own namespace.
// Source: proc_pid_status(5), NSpid, which a kernel without namespaces does not
// have.
func known(pid, tid, own int) (bool, error) {
	status, err := readStatus(pid, tid)
	if gone(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if state, _ := field(status, "State"); len(status) == 0 || len(state) > 0 && (state[0] == 'X' || state[0] == 'Z') {
		return false, nil
	}
	ids, there := field(status, "NSpid")
	if !there {
		return tid == own, nil
	}
	return ids[strings.LastIndexAny(ids, " \t")+1:] == strconv.Itoa(own), nil
}
