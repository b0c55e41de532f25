package unwind

import (
	"errors"
	"fmt"
)

// Bounds of an expression's evaluation.
const (
	maxOps   = 1000
	maxStack = 64
)

// DWARF operations that CFI uses. Source: DWARF 5, section 7.7.1; those that
// name objects, frames or pieces do not occur in CFI (section 6.4.2).
const (
	opAddr       = 0x03
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opConst2u    = 0x0a
	opConst2s    = 0x0b
	opConst4u    = 0x0c
	opConst4s    = 0x0d
	opConst8u    = 0x0e
	opConst8s    = 0x0f
	opConstu     = 0x10
	opConsts     = 0x11
	opDup        = 0x12
	opDrop       = 0x13
	opOver       = 0x14
	opPick       = 0x15
	opSwap       = 0x16
	opRot        = 0x17
	opAbs        = 0x19
	opAnd        = 0x1a
	opDiv        = 0x1b
	opMinus      = 0x1c
	opMod        = 0x1d
	opMul        = 0x1e
	opNeg        = 0x1f
	opNot        = 0x20
	opOr         = 0x21
	opPlus       = 0x22
	opPlusUconst = 0x23
	opShl        = 0x24
	opShr        = 0x25
	opShra       = 0x26
	opXor        = 0x27
	opBra        = 0x28
	opEq         = 0x29
	opGe         = 0x2a
	opGt         = 0x2b
	opLe         = 0x2c
	opLt         = 0x2d
	opNe         = 0x2e
	opSkip       = 0x2f
	opLit0       = 0x30
	opLit31      = 0x4f
	opBreg0      = 0x70
	opBreg31     = 0x8f
	opBregx      = 0x92
	opDerefSize  = 0x94
	opNop        = 0x96
)

// environment is what an expression may ask for.
type environment interface {
	// reg returns a register of the frame, by DWARF number.
	reg(n uint64) (uint64, error)
	// load returns size (at most 8) bytes of memory, zero-extended.
	load(addr, size uint64) (uint64, error)
}

// evaluator is a DWARF expression's stack.
type evaluator struct {
	env   environment
	r     reader
	stack []uint64
	err   error
}

// evaluate returns the value of expr. Its stack, which is maxStack values at
// most, is initial at first.
func evaluate(env environment, expr []byte, initial []uint64) (uint64, error) {
	e := evaluator{env: env, r: reader{b: expr}, stack: initial}
	for ops := 0; e.r.left() > 0; ops++ {
		if ops == maxOps {
			return 0, errors.New("expression: too many operations")
		}
		e.do(e.r.u8())
		if e.err == nil {
			e.err = e.r.err
		}
		if e.err != nil {
			return 0, fmt.Errorf("expression: %w", e.err)
		}
	}
	v := e.pop()
	if e.err != nil {
		return 0, fmt.Errorf("expression: %w", e.err)
	}
	return v, nil
}

func (e *evaluator) fail(err error) {
	if e.err == nil && err != nil {
		e.err = err
	}
}

func (e *evaluator) push(v uint64) {
	if len(e.stack) >= maxStack {
		e.fail(errors.New("stack overflow"))
		return
	}
	e.stack = append(e.stack, v)
}

func (e *evaluator) pop() uint64 {
	if len(e.stack) == 0 {
		e.fail(errors.New("stack underflow"))
		return 0
	}
	v := e.stack[len(e.stack)-1]
	e.stack = e.stack[:len(e.stack)-1]
	return v
}

// pick pushes the n-th value from the top.
func (e *evaluator) pick(n uint64) {
	if n >= uint64(len(e.stack)) {
		e.fail(errors.New("stack underflow"))
		return
	}
	e.push(e.stack[uint64(len(e.stack))-1-n])
}

func (e *evaluator) do(op uint8) {
	switch {
	case op >= opLit0 && op <= opLit31:
		e.push(uint64(op - opLit0))
	case op >= opBreg0 && op <= opBreg31:
		e.register(uint64(op - opBreg0))
	case op == opBregx:
		e.register(e.r.uleb())
	case op >= opConst1u && op <= opConsts || op == opAddr:
		e.push(e.constant(op))
	case op >= opDup && op <= opRot:
		e.shuffle(op)
	case op == opAbs || op == opNeg || op == opNot || op == opPlusUconst:
		e.unary(op)
	case op == opBra || op == opSkip:
		e.jump(op)
	case op >= opAnd && op <= opNe:
		e.binary(op)
	case op == opDeref:
		e.deref(8)
	case op == opDerefSize:
		e.deref(uint64(e.r.u8()))
	case op == opNop:
	default:
		e.fail(fmt.Errorf("operation %#x is not supported", op))
	}
}

func (e *evaluator) register(n uint64) {
	off := e.r.sleb()
	v, err := e.env.reg(n)
	e.fail(err)
	e.push(v + uint64(off))
}

func (e *evaluator) deref(size uint64) {
	if size == 0 || size > 8 {
		e.fail(fmt.Errorf("memory of %d bytes", size))
		return
	}
	v, err := e.env.load(e.pop(), size)
	e.fail(err)
	e.push(v)
}

func (e *evaluator) constant(op uint8) uint64 {
	r := &e.r
	switch op {
	case opConst1u:
		return uint64(r.u8())
	case opConst1s:
		return uint64(int64(int8(r.u8())))
	case opConst2u:
		return uint64(r.u16())
	case opConst2s:
		return uint64(int64(int16(r.u16())))
	case opConst4u:
		return uint64(r.u32())
	case opConst4s:
		return uint64(int64(int32(r.u32())))
	case opConstu:
		return r.uleb()
	case opConsts:
		return uint64(r.sleb())
	}
	return r.u64() // opAddr, opConst8u, opConst8s
}

func (e *evaluator) shuffle(op uint8) {
	switch op {
	case opDup:
		e.pick(0)
	case opDrop:
		e.pop()
	case opOver:
		e.pick(1)
	case opPick:
		e.pick(uint64(e.r.u8()))
	case opSwap:
		a, b := e.pop(), e.pop()
		e.push(a)
		e.push(b)
	case opRot: // the top goes below the next two
		a, b, c := e.pop(), e.pop(), e.pop()
		e.push(a)
		e.push(c)
		e.push(b)
	}
}

func (e *evaluator) unary(op uint8) {
	v := e.pop()
	switch op {
	case opAbs:
		if int64(v) < 0 {
			v = -v
		}
	case opNeg:
		v = -v
	case opNot:
		v = ^v
	case opPlusUconst:
		v += e.r.uleb()
	}
	e.push(v)
}

func (e *evaluator) jump(op uint8) {
	d := int(int16(e.r.u16()))
	if op == opBra && e.pop() == 0 {
		return
	}
	to := e.r.pos + d
	if to < 0 || to > len(e.r.b) {
		e.fail(errors.New("branch leaves the expression"))
		return
	}
	e.r.pos = to
}

func (e *evaluator) binary(op uint8) {
	b, a := e.pop(), e.pop()
	if (op == opDiv || op == opMod) && b == 0 {
		e.fail(errors.New("division by zero"))
		return
	}
	e.push(compute(op, a, b))
}

// compute does the arithmetic of two operands; division is signed, except
// for the remainder, and so are comparisons (DWARF 5, section 2.5.1.4).
func compute(op uint8, a, b uint64) uint64 {
	switch op {
	case opAnd:
		return a & b
	case opDiv:
		return uint64(int64(a) / int64(b))
	case opMinus:
		return a - b
	case opMod:
		return a % b
	case opMul:
		return a * b
	case opOr:
		return a | b
	case opPlus:
		return a + b
	case opShl:
		return a << b
	case opShr:
		return a >> b
	case opShra:
		return uint64(int64(a) >> b)
	case opXor:
		return a ^ b
	}
	var is bool
	switch op {
	case opEq:
		is = a == b
	case opGe:
		is = int64(a) >= int64(b)
	case opGt:
		is = int64(a) > int64(b)
	case opLe:
		is = int64(a) <= int64(b)
	case opLt:
		is = int64(a) < int64(b)
	case opNe:
		is = a != b
	}
	if is {
		return 1
	}
	return 0
}
