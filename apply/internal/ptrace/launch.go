package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// ErrForeign means that a program is of another architecture than the tool.
var ErrForeign = errors.New("the program is not of this tool's architecture")

// Launch is a process that is about to execute a program. It is used by the OS
// thread that made it and by no other.
type Launch struct {
	g *Group
	t *Thread
}

// SeizeLaunch takes the first thread of process pid, which is to execute a
// program. It runs on. With kill the process does not outlive the caller until
// it is detached: then no program begins unnoticed.
//
// Errors: [ErrGone], [ErrPermission], [*TracedError].
func SeizeLaunch(pid int, kill bool) (*Launch, error) {
	g, err := Seize(pid, Options{Only: []int{pid}, Kill: kill})
	if err != nil {
		return nil, err
	}
	return &Launch{g: g, t: g.threads[0]}, nil
}

// Detach lets the process go.
func (l *Launch) Detach() { l.g.Detach() }

// AwaitExec waits until the process has executed a program, and has not yet run
// any instruction of it.
//
// Errors: [ErrGone], those of stop if it returns one; [ErrForeign].
func (l *Launch) AwaitExec(stop func() error) error {
	const nap = 200 * time.Microsecond
	for {
		err := l.g.Serve()
		if l.g.exec {
			break
		}
		if err == nil {
			err = stop()
		}
		if err != nil {
			return err
		}
		time.Sleep(nap)
	}
	if err := l.t.Regs.get(l.t.TID); err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	l.t.fresh = true
	if l.t.Regs.foreign() {
		return ErrForeign
	}
	return nil
}

// Regs are the registers with which the program's first instruction is run.
func (l *Launch) Regs() *Regs { return &l.t.Regs }

// Hold has the program wait at entry, its entry point, until the child pid
// ends: cell is where the auxiliary vector on its stack says the entry point to
// the dynamic linker, 0 if there is none. If the child exits with 0, or with
// anyway in any case, the program begins; else the process ends with the child's exit status.
// code is as for NewAgent. It returns the program counter at which the thread
// waits.
//
// Preconditions: AwaitExec has returned.
func (l *Launch) Hold(mem *Mem, code []specs.Range[specs.Addr], pid int, entry, cell specs.Addr, anyway bool) (specs.Addr, error) {
	site, err := findTail(mem, code, holdSize)
	if err != nil {
		return 0, err
	}
	if err := mem.Write(site, newHold(pid, entry, cell, anyway)); err != nil {
		return 0, err
	}
	if cell != 0 {
		err = mem.Write(cell, binary.LittleEndian.AppendUint64(nil, uint64(site)))
	} else {
		l.t.Regs.setPC(site)
		err = l.t.Regs.set(l.t.TID)
	}
	return site + holdWaits, err
}

// Kill ends the process. What it was to run has not begun.
func (l *Launch) Kill() { _ = unix.Kill(l.g.pid, unix.SIGKILL) }
