package kpack

import (
	"encoding/binary"
	"fmt"

	"github.com/fother/fother/specs"
)

// Sizes of what the thread of hooks has, in bytes, and of the end of a list.
const (
	hookStack   = 64 << 10
	hookListEnd = 8
)

// memory is the size of all that the thread has, in bytes.
func (m *hookMachine) memory() uint64 { return hookStack + m.below + m.above + HookControl }

// HookControl is the size of the control block of a patch's hooks, in bytes. What
// the fields are for, [HookStart] and [HookState] tell; all are little endian.
const HookControl = 192

// Offsets in the control block. The code in hooks_x86_64.go and hooks_aarch64.go
// knows them too.
const (
	hookPoint   = 0
	hookDone    = 4
	hookGo      = 8
	hookStops   = 12
	hookResult  = 16
	hookFailed  = 20
	hookCount   = 24
	hookTurns   = 28
	hookList    = 32
	hookCreated = 40
	hookThread  = 48
	hookMXCSR   = 52
	hookStackAt = 56
	hookTP      = 64
	hookNap     = 72
	hookMask    = 88
	hookOldMask = 96
	hookHome    = 104
	hookHomeEnd = hookHome + 8*HookRegisters
)

// HookRegisters is how many registers of the borrowed thread are put back by its
// code, with the program counter, which is the last.
const HookRegisters = 10

// HookGo and HookDone are the offsets in the control block of the words that let
// the hooks begin, and tell that they have ended, by what is not 0; HookTurns that of
// how often the thread still looks whether it may begin. All have 32 bits.
const (
	HookGo    = hookGo
	HookDone  = hookDone
	HookTurns = hookTurns
)

// HookStart is what the control block is to hold before the thread is created.
type HookStart struct {
	Point HookPoint
	Place HookPlace
	// Handed leaves out the hooks that have Release.
	Handed bool
	// Home are the registers of the borrowed thread: on x86-64 rax, rcx, rdx, rsi,
	// rdi, r8, r9, r10, r11 and rip; on aarch64 where it goes on, by way of x16.
	Home [HookRegisters]uint64
}

// Bytes are those of the whole block.
func (s HookStart) Bytes() []byte {
	const (
		nap   = 200_000 // nanoseconds
		turns = 50_000
		// What a processor begins with: no floating point exceptions. Source: Intel
		// SDM, volume 1, 10.2.3.
		mxcsr = 0x1f80
		// Those of the thread itself are not blocked: the kernel would take away the
		// program's handler for them. SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
		own = 1<<3 | 1<<4 | 1<<6 | 1<<7 | 1<<10 | 1<<30
	)
	b := make([]byte, HookControl)
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	put64 := func(at int, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
	put32(hookPoint, uint32(s.Point))
	if s.Point.Vetoes() {
		put32(hookStops, 1)
	}
	put32(hookTurns, turns)
	list := s.Place.Lists[s.Point-1]
	if s.Handed {
		list = s.Place.Handed
	}
	put64(hookList, uint64(list))
	put32(hookMXCSR, mxcsr)
	put64(hookStackAt, uint64(s.Place.Stack))
	put64(hookTP, uint64(s.Place.Thread))
	put64(hookNap+8, nap)
	put64(hookMask, ^uint64(own))
	for i, v := range s.Home {
		put64(hookHome+8*i, v)
	}
	return b
}

// HookState is what the control block tells.
type HookState struct {
	// Point is the one that was begun last, 0 for none.
	Point HookPoint
	// Begun says that the hooks were let go, Done that they have ended, or that
	// nothing more is to be expected of them.
	Begun, Done bool
	// Result is the first that is not 0, and Failed the index of the hook that
	// returned it.
	Result int32
	Failed int
	// Ended is how many have ended.
	Ended int
	// Thread is the kernel's id of the thread as the process sees it, 0 when it
	// has ended or there was none.
	Thread int
	// Errno is why it could not be created, or 0.
	Errno uint64
}

// ReadHookState reads a control block of HookControl bytes. The process can have
// written anything there.
func ReadHookState(b []byte) (HookState, error) {
	if len(b) != HookControl {
		return HookState{}, fmt.Errorf("control block of %d bytes", len(b))
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	s := HookState{
		Point: HookPoint(word(hookPoint)), Begun: word(hookGo) != 0, Done: word(hookDone) != 0,
		Result: int32(word(hookResult)), Failed: int(min(word(hookFailed), maxHooks)), Ended: int(min(word(hookCount), maxHooks)), Thread: int(int32(word(hookThread))),
	}
	if e := binary.LittleEndian.Uint64(b[hookCreated:]); e > ^uint64(4095) {
		s.Errno = -e
	}
	if s.Point > PostRevert {
		return s, fmt.Errorf("%v is not known", s.Point)
	}
	return s, nil
}

// placeHooks gives what the hooks need its place in one region, from at on, and
// returns where it ends. In the data the stack comes first: what grows out of it meets
// memory that cannot be written.
func (p *Patch) placeHooks(l *Layout, m *machine, kind Kind, at uint64) uint64 {
	if len(p.Hooks) == 0 || m.hooks == nil {
		return at
	}
	switch kind {
	case ROData:
		l.hookLists = at
		return at + uint64(2*8*len(p.Hooks)+(HookPoints+1)*hookListEnd)
	case Text:
		l.hookCode = alignUp(at, 16)
		return l.hookCode + uint64(len(m.hooks.code))
	}
	l.hookMemory = at
	return at + m.hooks.memory()
}

// hooks fills in what the hooks need.
func (k *linker) hooks() (HookPlace, error) {
	var place HookPlace
	l, m := k.layout, k.machine.hooks
	if l.hookCode == 0 {
		return place, nil
	}
	at := func(off uint64) specs.Addr { return k.base + specs.Addr(off) }
	code := l.hookCode
	place = HookPlace{Code: at(code), Created: at(code + m.created), CodeEnd: at(code + m.home), Exit: at(code + m.exit), Stack: at(l.hookMemory + hookStack)}
	thread := l.hookMemory + hookStack + m.below
	place.Thread, place.Control = at(thread), at(thread+m.above)
	for _, off := range m.self {
		binary.LittleEndian.PutUint64(k.memory[thread+off:], uint64(place.Thread))
	}
	next := l.hookLists
	list := func(in func(Hook) bool) specs.Addr {
		begin := at(next)
		for _, h := range k.patch.Hooks {
			if in(h) {
				binary.LittleEndian.PutUint64(k.memory[next:], uint64(k.carried(k.patch.Symbols[h.Symbol])))
				next += 8
			}
		}
		next += hookListEnd
		return begin
	}
	for point := PreApply; point <= PostRevert; point++ {
		place.Lists[point-1] = list(func(h Hook) bool { return h.Point == point })
	}
	place.Handed = list(func(h Hook) bool { return h.Point == PostRevert && !h.Release })
	return place, m.put(k.memory[code:], place.Code, place.Control)
}
