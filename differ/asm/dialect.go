package asm

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/fother/fother/specs/arch"
)

// Dialect is what the assembly of one architecture has of its own.
type Dialect struct {
	Arch *arch.Arch
	// Comment begins a comment anywhere outside strings; LineComment at the
	// begin of a line only.
	Comment, LineComment string
	// Registers is the prefix of register names, or 0.
	Registers byte
	// Immediate is the prefix of immediate operands, or 0.
	Immediate byte
	// never is a byte that no instruction has, but those of other architectures
	// and syntaxes have.
	never byte
	// TypeMark comes before section and symbol types.
	TypeMark byte
	// AlignPower is set where .align takes a power of two, not bytes.
	AlignPower bool
	// branch reports whether an instruction is a direct call or jump when its
	// last operand is a symbol.
	branch func(mnemonic, operands string) bool
	// bare reports whether an operand that begins with a letter is a symbol:
	// it is the n-th (from 0) of an instruction, of total.
	bare func(mnemonic string, n int, last bool) bool
	// bareWord reports whether words among an instruction's operands may be
	// symbols without a mark before them. Nil stands for always.
	bareWord func(mnemonic, operands string) bool
	// mayName reports whether an instruction may name a symbol that has no mark
	// before it; it is set if bareWord is. More text may be behind the statement.
	mayName func(statement string) bool
	// naming are the letters that such instructions begin with.
	naming string
	// symbolMark is a mark that makes the word behind it a symbol in every
	// instruction, or "".
	symbolMark string
	// prefix reports whether a word is an instruction prefix.
	prefix func(word string) bool
	// SlotPair is set where two instructions together read an address from the
	// global offset table, so that both must be rewritten.
	SlotPair bool
	// SlotToAddress rewrites an instruction that reads the address of symbol
	// from the global offset table so that it computes it: symbols that a
	// patch defines need no slot. It reports whether it could.
	SlotToAddress func(stmt, symbol, replacement string) (string, bool)
	// AddressToSlot rewrites an instruction that computes the address of symbol
	// so that it reads it from the global offset table: data of another object
	// is too far away. It reports whether it could. May be nil.
	AddressToSlot func(stmt, symbol string) (string, bool)
	// LoadBySlot rewrites an instruction that loads a register from symbol so
	// that it finds it by the global offset table. It reports whether it could.
	// It is there if AddressToSlot is.
	LoadBySlot func(stmt, symbol string) (string, bool)
	// Escapes reports whether the function may give away or store the address of
	// what ref names in stmt, as far as the instructions behind it tell, which
	// rest yields. Nil stands for always.
	Escapes func(stmt string, ref Ref, rest iter.Seq[string]) bool
}

var dialects = []*Dialect{&x86_64, &aarch64}

// Bytes returns what the alignment directive of that name means by n, in
// bytes; 1 if n is no number.
func (d *Dialect) Bytes(name, n string) uint64 {
	v, err := strconv.ParseUint(strings.TrimSpace(n), 0, 32)
	if err != nil {
		return 1
	}
	if strings.HasPrefix(name, ".p2align") || name == ".align" && d.AlignPower {
		return 1 << min(v, 32)
	}
	return max(v, 1)
}

// DialectOf returns the dialect of a.
func DialectOf(a *arch.Arch) (*Dialect, error) {
	for _, d := range dialects {
		if d.Arch == a {
			return d, nil
		}
	}
	return nil, fmt.Errorf("assembly of %v is not supported", a)
}
