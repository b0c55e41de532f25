package asm

import (
	"iter"
	"slices"
	"strings"
)

// Registers by what calls do to them. Source: System V psABI x86-64, "Register
// Usage".
var (
	x86Arguments = []string{"rdi", "rsi", "rdx", "rcx", "r8", "r9"}
	x86Volatile  = append([]string{"rax", "r10", "r11"}, x86Arguments...)
)

// x86Words splits instructions.
var x86Words = Dialect{prefix: x86Prefix}

// x86Escapes follows the address that an instruction forms of what ref names,
// through registers and the stack frame, in text order: it does not know where
// jumps go. Tables that are indexed are read by it and nothing else.
func x86Escapes(text string, ref Ref, rest iter.Seq[string]) bool {
	mnemonic, at := x86Words.Mnemonic(text)
	operands := x86Operands(text[at:])
	immediate := ref.Lo > 0 && text[ref.Lo-1] == '$'
	switch {
	case len(operands) == 0, compares(mnemonic):
		return false
	case !immediate && !strings.HasPrefix(mnemonic, "lea") && !strings.HasPrefix(text[ref.Hi:], "@GOTPCREL"):
		return false // it reads or calls what is there
	}
	place := x86Place(operands[len(operands)-1])
	if len(operands) == 1 || place == "" {
		return true
	}
	held := holders{place: fresh}
	for next := range rest {
		if held.step(next) {
			return true
		}
		if len(held) == 0 {
			return false
		}
	}
	return false
}

// holders are the registers and places of the stack frame that hold an address.
type holders map[string]holder

// holder is what became of an address in a register.
type holder uint8

const (
	fresh holder = 1 + iota
	based        // something was read by it: if a call finds it there, it is no argument
)

// step goes over one instruction, and reports whether the address leaves the
// function there.
func (h holders) step(text string) (leaves bool) {
	mnemonic, at := x86Words.Mnemonic(text)
	operands := x86Operands(text[at:])
	tail := strings.HasPrefix(mnemonic, "jmp") && len(operands) == 1 && !IsLocalLabel(operands[0]) && !strings.HasPrefix(operands[0], "*%")
	switch {
	case strings.HasPrefix(mnemonic, "call"), tail:
		h.read(operands)
		leaves = slices.ContainsFunc(x86Arguments, func(r string) bool { return h[r] == fresh })
		for _, r := range x86Volatile {
			delete(h, r)
		}
		return leaves
	case strings.HasPrefix(mnemonic, "ret"):
		return h["rax"] != 0
	case len(operands) == 0, mnemonic[0] == 'j', compares(mnemonic):
		return false
	case strings.HasPrefix(mnemonic, "push"):
		return h[x86Place(operands[0])] != 0
	}
	last := operands[len(operands)-1]
	to := x86Place(last)
	if !strings.HasPrefix(mnemonic, "lea") {
		h.read(operands)
	}
	flows := h.flows(mnemonic, operands[:len(operands)-1])
	switch {
	case to == "":
		return flows // into memory
	case strings.HasPrefix(mnemonic, "xor") && operands[0] == last:
		delete(h, to)
	case flows:
		h[to] = fresh
	case strings.HasPrefix(mnemonic, "movh"), strings.HasPrefix(mnemonic, "movlp"): // half of a vector
	case strings.HasPrefix(mnemonic, "mov"), strings.HasPrefix(mnemonic, "lea"), strings.HasPrefix(mnemonic, "pop"),
		strings.HasPrefix(mnemonic, "set"):
		delete(h, to)
	}
	return false
}

// flows reports whether one of an instruction's sources is the address, or for
// lea is computed from it.
func (h holders) flows(mnemonic string, sources []string) bool {
	for _, s := range sources {
		if h[x86Place(s)] != 0 {
			return true
		}
		if strings.HasPrefix(mnemonic, "lea") && slices.ContainsFunc(x86Inner(s), func(r string) bool { return h[r] != 0 }) {
			return true
		}
	}
	return false
}

// read marks the registers by which operands are read or written.
func (h holders) read(operands []string) {
	for _, o := range operands {
		for _, r := range x86Inner(o) {
			if h[r] != 0 {
				h[r] = based
			}
		}
	}
}

// x86Inner returns the registers in the address of a memory operand.
func x86Inner(operand string) (registers []string) {
	_, inner, ok := strings.Cut(operand, "(")
	if !ok {
		return nil
	}
	for r := range strings.SplitSeq(strings.TrimSuffix(inner, ")"), ",") {
		registers = append(registers, x86Place(r))
	}
	return registers
}

// compares reports whether an instruction only sets flags.
func compares(mnemonic string) bool {
	return strings.HasPrefix(mnemonic, "cmp") && !strings.HasPrefix(mnemonic, "cmpxchg") || strings.HasPrefix(mnemonic, "test") ||
		strings.HasPrefix(mnemonic, "bt")
}

// x86Place returns the name of a register, of 64 bits if it is a part of one, or
// of a place in the stack frame; "" for other operands.
func x86Place(operand string) string {
	operand = strings.TrimSpace(operand)
	base, inner, memory := strings.Cut(operand, "(")
	switch {
	case memory && (inner == "%rbp)" || inner == "%rsp)") && !strings.Contains(base, "%"):
		return operand
	case memory || !strings.HasPrefix(operand, "%") || strings.Contains(operand, ":"):
		return ""
	}
	name := operand[1:]
	if whole, ok := x86Whole(name, 32); ok {
		return whole
	}
	return name
}

// x86Operands splits an instruction's operands.
func x86Operands(text string) (all []string) {
	depth, begin := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				all, begin = append(all, strings.TrimSpace(text[begin:i])), i+1
			}
		}
	}
	if last := strings.TrimSpace(text[begin:]); last != "" {
		all = append(all, last)
	}
	return all
}
