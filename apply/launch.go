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

	"golang.org/x/sys/unix"

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
	// ErrDiverted means that a program never came to its entry point: a library's
	// constructor executed a program, or did not return for long.
	ErrDiverted = errors.New("the program did not come to its entry point")
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
	// Constructors is how long those of the libraries may take; 0 is two minutes.
	Constructors time.Duration
}

// constructors is how long those of a program's libraries may take.
const constructors = 2 * time.Minute

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
// [ErrPermission], [*TracedError]; [ErrForeign], [ErrPrivileged], [ErrDiverted]; those of
// o.Check. After any but the last the program does not begin, unless o.Anyway is
// set; what a constructor has executed is ended some milliseconds after it began.
func AtEntry(ctx context.Context, pid int, o LaunchOptions) error {
	var waits specs.Addr
	var mem *ptrace.Mem
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
			if mem, err = ptrace.OpenMem(pid, true); err == nil {
				waits, err = hold(l, pid, mem, o.Anyway)
			}
		}
		if err != nil && !o.Anyway && !errors.Is(err, ErrGone) {
			l.Kill()
		}
		return err
	})
	if mem != nil {
		defer mem.Close()
	}
	if err != nil {
		return err
	}
	limit := o.Constructors
	if limit == 0 {
		limit = constructors
	}
	err = awaitCall(ctx, pid, mem, waits, limit)
	if err != nil && !o.Anyway && !errors.Is(err, ErrGone) && os.Getppid() == pid {
		_ = unix.Kill(pid, unix.SIGKILL) // if it has ended just now, that is what was wanted
	}
	return err
}

// Types of entries of the auxiliary vector. Source: linux/auxvec.h.
const (
	atEntry  = 9
	atBase   = 7
	atSecure = 23
)

// hold has the program wait at its entry point. A dynamic linker goes where the
// auxiliary vector on the stack tells it, without one the thread is there.
func hold(l *ptrace.Launch, pid int, mem *ptrace.Mem, anyway bool) (specs.Addr, error) {
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
// returns to pc. The libraries' constructors may take their time, up to limit;
// they may also execute a program, and then mem, the memory in which the
// process was to wait, is gone.
func awaitCall(ctx context.Context, pid int, mem memory, pc specs.Addr, limit time.Duration) error {
	const first, last = 100 * time.Microsecond, 5 * time.Millisecond
	end := time.Now().Add(limit)
	for nap := first; ; nap = min(nap+nap/4, last) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		if err != nil || ptrace.State(pid, pid) == "Z" {
			return errors.Join(ErrGone, ctx.Err())
		}
		if f := bytes.Fields(b); len(f) == 9 {
			if at, err := strconv.ParseUint(string(f[8]), 0, 64); err == nil && specs.Addr(at) == pc && !left(pid, mem, pc) {
				return nil
			}
		}
		if left(pid, mem, pc) {
			return fmt.Errorf("%w: a library's constructor executed another", ErrDiverted)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w in %v: a library's constructor does not return", ErrDiverted, limit)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(nap)
	}
}

// left reports whether process pid runs in other memory than mem, in which pc
// was mapped. One that is ending has none.
func left(pid int, mem memory, pc specs.Addr) bool {
	var b [1]byte
	if _, err := mem.ReadAt(b[:], int64(pc)); !errors.Is(err, ErrGone) {
		return false
	}
	aux, err := readAuxv(pid)
	return err == nil && aux[atEntry] != 0
}
