package unwind

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

const (
	// maxFrames is the number of frames after which a walk gives up.
	maxFrames = 1 << 16
	// maxRows bounds the rows that a Walker keeps.
	maxRows = 1 << 15
)

// Reasons for which a walk is not complete, besides [ErrNoCFI].
var (
	ErrNoObject = errors.New("in no object")
	ErrTooDeep  = errors.New("too many frames")
	ErrNotUp    = errors.New("the stack does not go up")
	ErrLost     = errors.New("a register's value is not known")
)

// Frame is one activation of a function.
type Frame struct {
	// PC is where the function goes on: the program counter of the first
	// frame and of one that a signal interrupted, else a return address.
	PC specs.Addr
	// At lies inside the instruction that is being executed: PC, or for a
	// return address PC-1. A call may be its function's last instruction, and
	// then PC is the next function's.
	At specs.Addr
	// CFA is the canonical frame address: the stack pointer of the caller
	// before the call, or where a signal interrupted.
	CFA specs.Addr
	// Signal is set for the code to which a signal handler returns; the next
	// frame was interrupted.
	Signal bool
}

// IncompleteError says why a walk ended before the outermost frame. Nothing
// is known about the callers of the last frame.
type IncompleteError struct {
	PC  specs.Addr // of the frame whose caller was not found
	Err error
}

func (e *IncompleteError) Error() string { return fmt.Sprintf("frame at %v: %v", e.PC, e.Err) }

// Unwrap returns the reason.
func (e *IncompleteError) Unwrap() error { return e.Err }

// Walker walks stacks of one process. It is for one goroutine; several walkers
// may share objects.
type Walker struct {
	abi   *abi
	find  func(specs.Addr) *Object
	stack window
	// values is room for expressions.
	values [maxStack]uint64
	rows   map[uint64]cachedRow
	cies   map[*Object]map[uint64]*cie
}

// cachedRow is what was found for an address in an object, a failure too.
type cachedRow struct {
	object *Object
	rules  *rules
	err    error
}

// NewWalker returns a walker of a process of architecture a. Offsets of mem
// are run-time addresses; find returns the object that an address lies in, or
// nil. It is asked for every frame, so that what is mapped may change between
// walks.
func NewWalker(a *arch.Arch, mem io.ReaderAt, find func(specs.Addr) *Object) (*Walker, error) {
	abi, ok := abis[a]
	if !ok {
		return nil, fmt.Errorf("%v: no unwinder", a)
	}
	return &Walker{
		abi: abi, find: find, stack: window{mem: mem},
		rows: map[uint64]cachedRow{}, cies: map[*Object]map[uint64]*cie{},
	}, nil
}

// Walk returns the frames of the thread that has registers regs, innermost
// first, appended to frames. If the error is nil they are all of them; else it
// is an [*IncompleteError], and frames that were not found may exist.
//
// Preconditions: the thread is stopped. (A thread that runs does no harm, but
// the result means nothing.)
func (w *Walker) Walk(regs *Registers, frames []Frame) ([]Frame, error) {
	w.stack.reset()
	c := context{walker: w, abi: w.abi, pc: uint64(regs.PC), regs: regs.R, known: w.abi.all, mask: regs.PACMask, exact: true}
	for range maxFrames {
		frame, last, err := c.step()
		frames = append(frames, frame)
		if err != nil {
			return frames, &IncompleteError{frame.PC, err}
		}
		if last {
			return frames, nil
		}
	}
	return frames, &IncompleteError{specs.Addr(c.pc), ErrTooDeep}
}

// rulesAt returns the unwind rules for address at.
func (w *Walker) rulesAt(at uint64) (*rules, error) {
	o := w.find(specs.Addr(at))
	if o == nil || !o.Range.Contains(specs.Addr(at)) || o.abi != w.abi {
		return nil, ErrNoObject
	}
	if r, ok := w.rows[at]; ok && r.object == o {
		return r.rules, r.err
	}
	r, err := w.read(o, at)
	if errors.Is(err, ErrNoCFI) {
		if plt := w.pltRules(o, at); plt != nil {
			r, err = plt, nil
		}
	}
	if len(w.rows) >= maxRows {
		clear(w.rows)
	}
	w.rows[at] = cachedRow{o, r, err}
	return r, err
}

// read finds the rules for address at in o.
func (w *Walker) read(o *Object, at uint64) (*rules, error) {
	off, err := o.find(at)
	if err != nil {
		return nil, err
	}
	e, err := o.entry(off)
	if err != nil {
		return nil, err
	}
	cies := w.cies[o]
	if cies == nil {
		cies = map[uint64]*cie{}
		w.cies[o] = cies
	}
	f, err := o.parseFDE(e, cies)
	if err != nil {
		return nil, err
	}
	if at < f.lo || at >= f.hi {
		return nil, ErrNoCFI
	}
	r, err := f.rowAt(w.abi, at)
	if err != nil {
		return nil, fmt.Errorf("FDE at %#x: %w", o.addr+off, err)
	}
	return r, nil
}

// context is a frame's registers while a walk goes on.
type context struct {
	walker *Walker
	abi    *abi
	pc     uint64
	regs   [columns]uint64
	known  uint32 // the registers whose values are known
	mask   uint64
	exact  bool // pc is the next instruction, not a return address
	rules  *rules
	cfa    uint64
}

// step describes the frame and goes to its caller; last is set if it has
// none.
func (c *context) step() (f Frame, last bool, err error) {
	f = Frame{PC: specs.Addr(c.pc), At: specs.Addr(c.pc)}
	if !c.exact {
		f.At--
	}
	if c.pc%c.abi.insn != 0 {
		return f, false, errors.New("not an instruction's address")
	}
	c.rules, err = c.walker.rulesAt(uint64(f.At))
	if err != nil || c.rules.signal && c.abi.sigreturnFirst {
		if c.isSigreturn() {
			f.Signal = true
			err := c.fromSigcontext()
			f.CFA = specs.Addr(c.regs[c.abi.sp])
			return f, false, err
		}
		if err == nil {
			err = errors.New("signal frame of an unknown kind")
		}
		return f, false, err
	}
	f.Signal = c.rules.signal
	if err := c.findCFA(); err != nil {
		return f, false, err
	}
	f.CFA = specs.Addr(c.cfa)
	if c.rules.ra.kind == undefined {
		return f, true, nil
	}
	return f, false, c.toCaller()
}

// reg implements environment.
func (c *context) reg(n uint64) (uint64, error) {
	if n == c.abi.pc {
		return c.pc, nil
	}
	if n >= columns || c.known>>n&1 == 0 {
		return 0, fmt.Errorf("register %d: %w", n, ErrLost)
	}
	return c.regs[n], nil
}

// load implements environment.
func (c *context) load(addr, size uint64) (uint64, error) { return c.walker.stack.load(addr, size) }

func (c *context) findCFA() error {
	r := c.rules
	var err error
	switch {
	case !r.cfaSet:
		return errors.New("no CFA")
	case r.cfaExpr != nil:
		c.cfa, err = evaluate(c, r.cfaExpr, c.walker.values[:0])
	default:
		c.cfa, err = c.reg(uint64(r.cfaReg))
		c.cfa += uint64(r.cfaOff)
	}
	if err != nil {
		return fmt.Errorf("CFA: %w", err)
	}
	// A signal handler may have a stack of its own.
	if sp := c.regs[c.abi.sp]; !r.signal && (c.known>>c.abi.sp&1 == 0 || c.cfa < sp || c.cfa-sp < c.abi.callSize) {
		return ErrNotUp
	}
	return nil
}

// toCaller replaces the registers by those of the caller.
func (c *context) toCaller() error {
	regs, known := c.regs, c.known&c.abi.saved&^c.rules.specified
	for i := range c.rules.others {
		r := &c.rules.others[i]
		v, ok, err := c.callers(&r.rule, uint64(r.reg))
		if err != nil {
			return fmt.Errorf("register %d: %w", r.reg, err)
		}
		if regs[r.reg] = v; ok {
			known |= 1 << r.reg
		}
	}
	if sp := c.abi.sp; c.rules.specified>>sp&1 == 0 {
		regs[sp], known = c.cfa, known|1<<sp
	}
	pc, err := c.returnAddress()
	if err != nil {
		return fmt.Errorf("return address: %w", err)
	}
	c.pc, c.exact, c.regs, c.known = pc, c.rules.signal, regs, known
	return nil
}

// callers returns the value that register n, which rule r is about, has in
// the caller, and whether it is known.
func (c *context) callers(r *rule, n uint64) (uint64, bool, error) {
	var v uint64
	var err error
	switch r.kind {
	case sameValue:
		return c.regs[n], c.known>>n&1 != 0, nil
	case register:
		if v, err = c.reg(uint64(r.from)); err != nil {
			return 0, false, nil // it matters only if it is asked for
		}
	case offset:
		v, err = c.load(c.cfa+uint64(r.off), 8)
	case valOffset:
		v = c.cfa + uint64(r.off)
	case expression:
		if v, err = evaluate(c, r.expr, append(c.walker.values[:0], c.cfa)); err == nil {
			v, err = c.load(v, 8)
		}
	case valExpression:
		v, err = evaluate(c, r.expr, append(c.walker.values[:0], c.cfa))
	default:
		return 0, false, nil
	}
	return v, err == nil, err
}

var errAboveCFA = errors.New("the return address is saved above the CFA, which so is not that of the frame")

// returnAddress returns the caller's program counter.
func (c *context) returnAddress() (uint64, error) {
	rule, column := c.rules.ra, uint64(c.rules.raColumn)
	// A leaf's link register. Another register without a rule is not to be
	// trusted: glibc's rawmemchr on aarch64 names x15 for all of its code, but
	// moves the return address there only halfway.
	if rule.kind == unspecified && column == c.abi.ra && column != c.abi.pc {
		rule.kind = sameValue
	}
	if rule.kind == offset && rule.off >= 0 && !c.rules.signal {
		return 0, errAboveCFA
	}
	v, ok, err := c.callers(&rule, column)
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, ErrLost
	}
	if c.rules.raSigned {
		v &^= c.mask
	}
	if v == 0 {
		return 0, errors.New("zero, in a frame that is not marked as the outermost")
	}
	return v, nil
}

// isSigreturn reports whether the code at pc returns from a signal handler.
func (c *context) isSigreturn() bool {
	b, err := c.walker.stack.bytes(c.pc, len(c.abi.sigreturn))
	return err == nil && bytes.Equal(b, c.abi.sigreturn)
}

// fromSigcontext replaces the registers by those that the kernel saved.
func (c *context) fromSigcontext() error {
	sp, err := c.reg(c.abi.sp)
	if err != nil {
		return err
	}
	next := *c
	for n := range uint64(columns) {
		if c.abi.all>>n&1 == 0 {
			continue
		}
		if next.regs[n], err = c.load(sp+c.abi.sigcontext[n], 8); err != nil {
			return fmt.Errorf("signal frame: %w", err)
		}
	}
	if next.pc, err = c.load(sp+c.abi.sigcontext[columns], 8); err != nil {
		return fmt.Errorf("signal frame: %w", err)
	}
	next.known, next.exact = c.abi.all, true
	*c = next
	return nil
}
