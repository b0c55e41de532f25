package apply

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

var (
	// ErrForeign means that a program is of another architecture than the tool.
	ErrForeign = ptrace.ErrForeign
	// ErrPrivileged means that a program would have got rights of its own
	// (set-user-ID, set-group-ID, file capabilities), which it does not get
	// while it is traced.
	ErrPrivileged = errors.New("the program changes its privileges when it is executed")
)

// LaunchOptions are those of AtEntry.
type LaunchOptions struct {
	// Ready is called once the process may execute the program. After an error
	// of Ready nothing more is done.
	Ready func() error
	// Anyway has the program begin whatever becomes of the caller.
	Anyway bool
	// Check is asked, with the process's id, once the process has executed the
	// program. After an error the program begins as it is: nothing was written
	// to it. It may be nil.
	Check func(pid int) error
}

// AtEntry waits until process pid, the caller's parent, executes a program,
// and the dynamic linker has loaded and relocated the program's libraries and
// run their constructors. When it returns, the program is at its entry point,
// and waits there until the caller ends: if the caller's exit status is 0, or
// with o.Anyway in any case, it begins, and else the process ends with that
// status. The process is not traced any more, and can be patched as any other
// that waits in a system call. PROTOCOL.md says how.
//
// Preconditions: the first thread of the process executes the program, and the
// caller was created by the process.
//
// Errors: [ErrGone] if the process ended, as it does if a library is missing;
// [ErrPermission], [*TracedError]; [ErrForeign], [ErrPrivileged]; those of
// o.Check. After any but the last the program does not begin, unless o.Anyway is
// set.
func AtEntry(ctx context.Context, pid int, o LaunchOptions) error {
	var waits specs.Addr
	err := ptrace.Do(func() error {
		l, err := ptrace.SeizeLaunch(pid, !o.Anyway)
		if err != nil {
			return err
		}
		defer l.Detach()
		if err := o.Ready(); err != nil {
			return err
		}
		if err = l.AwaitExec(ctx.Err); err == nil {
			if o.Check != nil {
				if err := o.Check(pid); err != nil {
					return err
				}
			}
			waits, err = hold(l, pid, o.Anyway)
		}
		if err != nil && !o.Anyway && !errors.Is(err, ErrGone) {
			l.Kill()
		}
		return err
	})
	if err != nil {
		return err
	}
	return awaitCall(ctx, pid, waits)
}

// Types of entries of the auxiliary vector. Source: linux/auxvec.h.
const (
	atEntry  = 9
	atBase   = 7
	atSecure = 23
)

// hold has the program wait at its entry point. A dynamic linker goes where the
// auxiliary vector on the stack tells it, without one the thread is there.
func hold(l *ptrace.Launch, pid int, anyway bool) (specs.Addr, error) {
	maps, err := readMaps(pid)
	if err != nil {
		return 0, err
	}
	aux, err := readAuxv(pid)
	if err != nil {
		return 0, err
	}
	if aux[atSecure] != 0 {
		return 0, ErrPrivileged
	}
	mem, err := ptrace.OpenMem(pid, true)
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	entry, cell := specs.Addr(aux[atEntry]), specs.Addr(0)
	if aux[atBase] != 0 {
		if cell, err = entryCell(mem, maps, l.Regs().SP(), aux[atEntry]); err != nil {
			return 0, err
		}
	} else if l.Regs().PC() != entry {
		return 0, fmt.Errorf("the program begins at %v, not at its entry point %v", l.Regs().PC(), entry)
	}
	return l.Hold(mem, codeRanges(maps), os.Getpid(), entry, cell, anyway)
}

// readAuxv reads the kernel's copy of the auxiliary vector.
func readAuxv(pid int) (map[uint64]uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return nil, procError(err)
	}
	aux := make(map[uint64]uint64)
	for ; len(b) >= 16; b = b[16:] {
		aux[binary.LittleEndian.Uint64(b)] = binary.LittleEndian.Uint64(b[8:])
	}
	return aux, nil
}

// maxStack bounds what is read of a new program's stack, in bytes: arguments
// and environment may take a quarter of its limit.
const maxStack = 64 << 20

// entryCell returns where the program's own copy of the auxiliary vector has
// the entry point: behind the number of arguments at sp, the arguments and the
// environment, of which each ends with a zero word. Source: psABI, "Initial
// Stack and Register State".
func entryCell(mem memory, maps []Mapping, sp specs.Addr, entry uint64) (specs.Addr, error) {
	m := mappingAt(maps, sp)
	if m == nil || m.Range.Hi-sp > maxStack {
		return 0, fmt.Errorf("no stack is at %v", sp)
	}
	b := make([]byte, (m.Range.Hi-sp)&^7)
	if err := readFull(mem, sp, b); err != nil {
		return 0, fmt.Errorf("the program's stack: %w", err)
	}
	word := func(i uint64) uint64 {
		if i >= uint64(len(b)/8) {
			return 0
		}
		return binary.LittleEndian.Uint64(b[8*i:])
	}
	at := min(word(0), uint64(len(b))) + 2
	for word(at) != 0 {
		at++
	}
	for at++; word(at) != 0; at += 2 {
		if word(at) == atEntry && word(at+1) == entry {
			return sp + specs.Addr(8*(at+1)), nil
		}
	}
	return 0, errors.New("the program's stack has no auxiliary vector")
}

// awaitCall waits until the first thread of pid is in a system call that
// returns to pc. The library's constructors may take their time.
func awaitCall(ctx context.Context, pid int, pc specs.Addr) error {
	const first, last = 100 * time.Microsecond, 5 * time.Millisecond
	for nap := first; ; nap = min(nap+nap/4, last) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil || ptrace.State(pid, pid) == "Z" {
			return errors.Join(ErrGone, ctx.Err())
		}
		if f := bytes.Fields(b); len(f) == 9 {
			if at, err := strconv.ParseUint(string(f[8]), 0, 64); err == nil && specs.Addr(at) == pc {
				return nil
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(nap)
	}
}
