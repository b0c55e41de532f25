package apply

import (
	"encoding/binary"
	"slices"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// stackUses is what a stop has shown of the threads' stacks. The zero value
// says that there was none.
type stackUses struct {
	// own are the stacks that threads were made with and run on, by the end of
	// their mapping.
	own map[specs.Addr]stackUse
	// threads are the thread pointers of all threads; tids are their ids.
	threads map[specs.Addr]bool
	tids    map[int]bool
	// proven are the records into whose code no thread returns.
	proven []*record
}

// stackUse says which part of a thread's own stack was in use.
type stackUse struct {
	specs.Range[specs.Addr]            // of the mapping
	sp                      specs.Addr // what lies below is free
}

// note takes in what the threads' registers say. Memory other than its own
// stack that a stack pointer points into, such as a heap with coroutines, is
// not taken for a stack.
//
// Preconditions: the threads' registers and the inspector's mappings are those of
// a stop in which none was inside the code of proven.
func (u *stackUses) note(in *inspector, threads []*ptrace.Thread, proven []*record) {
	*u = stackUses{
		own: make(map[specs.Addr]stackUse), threads: make(map[specs.Addr]bool), tids: make(map[int]bool),
		proven: proven,
	}
	foreign := make(map[specs.Addr]bool)
	for _, t := range threads {
		u.tids[t.TID] = true
		if tp, ok := t.Regs.ThreadPointer(); ok {
			u.threads[tp] = true
		}
		sp := t.Regs.SP()
		m := mappingAt(in.maps, sp)
		switch {
		case m == nil:
		case !in.ownStack(t, m):
			foreign[m.Range.Hi] = true
		default:
			free := (sp - min(sp, redZone)) &^ 7
			if old, ok := u.own[m.Range.Hi]; ok {
				free = min(free, old.sp)
			}
			u.own[m.Range.Hi] = stackUse{m.Range, free}
		}
	}
	for hi := range foreign {
		delete(u.own, hi)
	}
}

// maxTLS bounds the distance of a thread's control block from the end of its
// stack: the block itself and alignment. Source: glibc, nptl/allocatestack.c.
const maxTLS = 16 << 10

// ended returns the memory in m, if any, that was the stack of a thread that
// has ended: glibc keeps such stacks for threads to come. It begins above a
// guard, and ends in a control block that points to itself twice and is no
// thread's (x86-64 TLS ABI, "thread control block"; other architectures' blocks
// do not point to themselves, so nothing is found there).
func (u *stackUses) ended(p *Process, maps []Mapping, m *Mapping) (specs.Range[specs.Addr], bool) {
	none := specs.Range[specs.Addr]{}
	if len(u.threads) == 0 || !m.anonymous() {
		return none, false
	}
	below := slices.IndexFunc(maps, func(o Mapping) bool { return o.Range.Hi == m.Range.Lo })
	if below < 0 || maps[below].Perm != "---p" {
		return none, false
	}
	tail := make([]byte, min(m.Range.Size(), maxTLS))
	at := m.Range.Hi - specs.Addr(len(tail))
	if readFull(p.mem, at, tail) != nil {
		return none, false
	}
	const align, self = 64, 16
	for i := int(-at & (align - 1)); i+self+8 <= len(tail); i += align {
		tcb := at + specs.Addr(i)
		if specs.Addr(binary.LittleEndian.Uint64(tail[i:])) == tcb && specs.Addr(binary.LittleEndian.Uint64(tail[i+self:])) == tcb {
			return specs.Range[specs.Addr]{Lo: m.Range.Lo, Hi: tcb}, !u.threads[tcb]
		}
	}
	return none, false
}

// still reports whether every thread of the process was there at the stop.
func (u *stackUses) still(pid int) bool {
	tids, err := ptrace.Threads(pid)
	return err == nil && !slices.ContainsFunc(tids, func(tid int) bool { return !u.tids[tid] })
}
