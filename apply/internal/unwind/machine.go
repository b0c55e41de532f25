package unwind

import (
	"errors"
	"fmt"
)

// maxStates bounds DW_CFA_remember_state.
const maxStates = 64

// ruleKind says how a register of the caller is found. Source: DWARF 5,
// section 6.4.1.
type ruleKind uint8

const (
	unspecified ruleKind = iota // as the psABI says of the register
	undefined
	sameValue
	offset        // at CFA + off
	valOffset     // is CFA + off
	register      // is in another register
	expression    // at the expression's value
	valExpression // is the expression's value
)

type rule struct {
	kind ruleKind
	from uint8 // of kind register
	off  int64
	expr []byte
}

// row says how to unwind from an address. A CFA rule is either an expression,
// or register plus offset.
type row struct {
	cfaSet  bool
	cfaReg  uint8
	cfaOff  int64
	cfaExpr []byte
	rules   [columns]rule
	// raSigned is set where the return address has a pointer authentication
	// code.
	raSigned bool
}

// rules is a row in the form that is kept: without the registers for which
// nothing is specified.
type rules struct {
	cfaSet   bool
	raSigned bool
	signal   bool // the caller was interrupted
	cfaReg   uint8
	cfaOff   int64
	cfaExpr  []byte
	raColumn uint8
	ra       rule // of raColumn
	others   []registerRule
	// specified are the registers in others, a bit each.
	specified uint32
}

type registerRule struct {
	rule
	reg uint8 // of the caller
}

// machine executes call frame instructions up to an address.
type machine struct {
	abi    *abi
	cie    *cie
	row    row
	states []row
	above  bool // the return address was said to be above the CFA
}

// Call frame instructions. Source: DWARF 5, section 7.24; LSB core, "Call
// Frame Instruction Extensions"; AADWARF64.
const (
	cfaNop               = 0x00
	cfaSetLoc            = 0x01
	cfaAdvanceLoc1       = 0x02
	cfaAdvanceLoc2       = 0x03
	cfaAdvanceLoc4       = 0x04
	cfaOffsetExtended    = 0x05
	cfaRestoreExtended   = 0x06
	cfaUndefined         = 0x07
	cfaSameValue         = 0x08
	cfaRegister          = 0x09
	cfaRememberState     = 0x0a
	cfaRestoreState      = 0x0b
	cfaDefCFA            = 0x0c
	cfaDefCFARegister    = 0x0d
	cfaDefCFAOffset      = 0x0e
	cfaDefCFAExpression  = 0x0f
	cfaExpression        = 0x10
	cfaOffsetExtendedSF  = 0x11
	cfaDefCFASF          = 0x12
	cfaDefCFAOffsetSF    = 0x13
	cfaValOffset         = 0x14
	cfaValOffsetSF       = 0x15
	cfaValExpression     = 0x16
	cfaNegateRAStatePC   = 0x2c
	cfaNegateRAState     = 0x2d
	cfaGNUArgsSize       = 0x2e
	cfaGNUNegativeOffset = 0x2f

	cfaAdvanceLoc = 0x40 // with the operand in the low six bits
	cfaOffset     = 0x80
	cfaRestore    = 0xc0
)

// rowAt returns the rules of f for pc.
func (f *fde) rowAt(a *abi, pc uint64) (*rules, error) {
	m := machine{abi: a, cie: f.cie, row: *f.cie.initial}
	if err := m.runFrom(f.insns, f.lo, pc); err != nil {
		return nil, err
	}
	if a.callSize == 0 && !f.cie.signal {
		if err := f.checkAbove(a); err != nil {
			return nil, err
		}
	}
	return m.row.compact(f.cie.ra, f.cie.signal), nil
}

// checkAbove refuses all rows of f if one of them has the return address above the CFA:
// then the CFA of the others is not that of the frame either, though nothing in them
// tells. glibc's _dl_runtime_resolve on aarch64 leaves out the 16 bytes that the PLT has
// pushed; at its first instruction the return address is still in its register.
func (f *fde) checkAbove(a *abi) error {
	m := machine{abi: a, cie: f.cie, row: *f.cie.initial}
	if err := m.runFrom(f.insns, f.lo, ^uint64(0)); err != nil {
		return err
	}
	if m.above {
		return errAboveCFA
	}
	return nil
}

// run executes a CIE's instructions.
func (m *machine) run(r reader, pc uint64) error { return m.runFrom(r, 0, pc) }

// runFrom executes the instructions in r, the first of which holds from loc,
// until they are about addresses beyond pc.
func (m *machine) runFrom(r reader, loc, pc uint64) error {
	for r.left() > 0 && r.err == nil {
		op := r.u8()
		next, advanced := m.advance(op, &r, loc)
		if advanced {
			if r.err == nil && next < loc {
				return errors.New("locations do not rise")
			}
			if next > pc {
				return r.err
			}
			loc = next
			continue
		}
		if err := m.step(op, &r); err != nil {
			return err
		}
	}
	return r.err
}

// advance handles the instructions that begin a new row.
func (m *machine) advance(op uint8, r *reader, loc uint64) (uint64, bool) {
	var delta uint64
	switch {
	case op&0xc0 == cfaAdvanceLoc:
		delta = uint64(op & 0x3f)
	case op == cfaAdvanceLoc1:
		delta = uint64(r.u8())
	case op == cfaAdvanceLoc2:
		delta = uint64(r.u16())
	case op == cfaAdvanceLoc4:
		delta = uint64(r.u32())
	case op == cfaSetLoc:
		return r.pointer(m.cie.fdeEnc, 0), true
	default:
		return loc, false
	}
	return loc + delta*m.cie.codeAlign, true
}

// step executes one instruction that changes the row.
func (m *machine) step(op uint8, r *reader) error {
	switch op & 0xc0 {
	case cfaOffset:
		m.set(uint64(op&0x3f), rule{kind: offset, off: m.factored(r.uleb())})
		return nil
	case cfaRestore:
		return m.restore(uint64(op & 0x3f))
	}
	switch op {
	case cfaNop:
	case cfaGNUArgsSize:
		r.uleb()
	case cfaRestoreExtended:
		return m.restore(r.uleb())
	case cfaRememberState:
		if len(m.states) >= maxStates {
			return errors.New("too many remembered states")
		}
		m.states = append(m.states, m.row)
	case cfaRestoreState:
		if len(m.states) == 0 {
			return errors.New("no remembered state")
		}
		m.row, m.states = m.states[len(m.states)-1], m.states[:len(m.states)-1]
	case cfaNegateRAState, cfaNegateRAStatePC:
		if !m.abi.signs {
			return fmt.Errorf("instruction %#x is not this architecture's", op)
		}
		m.row.raSigned = !m.row.raSigned
	case cfaDefCFA, cfaDefCFASF, cfaDefCFARegister, cfaDefCFAOffset, cfaDefCFAOffsetSF, cfaDefCFAExpression:
		return m.defCFA(op, r)
	default:
		return m.setRule(op, r)
	}
	return nil
}

// defCFA executes the instructions that set the CFA rule.
func (m *machine) defCFA(op uint8, r *reader) error {
	switch op {
	case cfaDefCFAExpression:
		m.row.cfaSet, m.row.cfaExpr = true, r.bytes(r.uleb())
		return nil
	case cfaDefCFARegister, cfaDefCFAOffset, cfaDefCFAOffsetSF:
		if !m.row.cfaSet || m.row.cfaExpr != nil {
			return errors.New("CFA is not a register plus an offset")
		}
	}
	switch op {
	case cfaDefCFA, cfaDefCFASF, cfaDefCFARegister:
		reg := r.uleb()
		if reg >= columns {
			return fmt.Errorf("CFA in register %d", reg)
		}
		m.row.cfaSet, m.row.cfaReg, m.row.cfaExpr = true, uint8(reg), nil
	}
	switch op {
	case cfaDefCFA, cfaDefCFAOffset:
		m.row.cfaOff = int64(r.uleb())
	case cfaDefCFASF, cfaDefCFAOffsetSF:
		m.row.cfaOff = m.factored(uint64(r.sleb()))
	}
	return nil
}

// setRule executes the instructions that set a register's rule.
func (m *machine) setRule(op uint8, r *reader) error {
	reg := r.uleb()
	switch op {
	case cfaUndefined:
		m.set(reg, rule{kind: undefined})
	case cfaSameValue:
		m.set(reg, rule{kind: sameValue})
	case cfaOffsetExtended:
		m.set(reg, rule{kind: offset, off: m.factored(r.uleb())})
	case cfaOffsetExtendedSF:
		m.set(reg, rule{kind: offset, off: m.factored(uint64(r.sleb()))})
	case cfaGNUNegativeOffset:
		m.set(reg, rule{kind: offset, off: -m.factored(r.uleb())})
	case cfaValOffset:
		m.set(reg, rule{kind: valOffset, off: m.factored(r.uleb())})
	case cfaValOffsetSF:
		m.set(reg, rule{kind: valOffset, off: m.factored(uint64(r.sleb()))})
	case cfaExpression:
		m.set(reg, rule{kind: expression, expr: r.bytes(r.uleb())})
	case cfaValExpression:
		m.set(reg, rule{kind: valExpression, expr: r.bytes(r.uleb())})
	case cfaRegister:
		from := r.uleb()
		if !m.abi.follows(from) && m.abi.follows(reg) {
			m.set(reg, rule{kind: undefined}) // its value is not followed
			if reg == m.cie.ra {
				return fmt.Errorf("return address in register %d", from)
			}
			return nil
		}
		m.set(reg, rule{kind: register, from: uint8(from)})
	default:
		return fmt.Errorf("instruction %#x is not known", op)
	}
	return nil
}

// set sets the rule of reg. Registers that are not followed, such as vector
// registers, have none.
func (m *machine) set(reg uint64, to rule) {
	if m.abi.follows(reg) {
		m.row.rules[reg] = to
	}
	m.above = m.above || reg == m.cie.ra && to.kind == offset && to.off >= 0
}

func (m *machine) restore(reg uint64) error {
	if m.cie.initial == nil {
		return errors.New("restore in a CIE")
	}
	if m.abi.follows(reg) {
		m.row.rules[reg] = m.cie.initial.rules[reg]
	}
	return nil
}

func (m *machine) factored(n uint64) int64 { return int64(n) * m.cie.dataAlign }

// compact returns the rules of r.
func (r *row) compact(ra uint64, signal bool) *rules {
	c := &rules{
		cfaSet: r.cfaSet, cfaReg: r.cfaReg, cfaOff: r.cfaOff, cfaExpr: r.cfaExpr,
		raSigned: r.raSigned, signal: signal, raColumn: uint8(ra), ra: r.rules[ra],
	}
	for n := range r.rules {
		if uint64(n) != ra && r.rules[n].kind != unspecified {
			c.others = append(c.others, registerRule{r.rules[n], uint8(n)})
			c.specified |= 1 << n
		}
	}
	return c
}
