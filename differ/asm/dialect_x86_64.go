package asm

import (
	"strconv"
	"strings"

	"github.com/fother/fother/specs/arch"
)

// x86_64 is AT&T syntax as GNU as reads it on Linux. Source: as(1) manual,
// "80386 Dependent Features".
var x86_64 = Dialect{
	Arch:        arch.X86_64,
	Comment:     "#",
	LineComment: "/",
	never:       '[', // addresses in Intel syntax and A64
	Registers:   '%',
	Immediate:   '$',
	TypeMark:    '@',
	branch: func(mnemonic, operands string) bool {
		if strings.HasPrefix(operands, "*") {
			return false
		}
		return mnemonic[0] == 'j' || strings.HasPrefix(mnemonic, "call") ||
			strings.HasPrefix(mnemonic, "loop") || mnemonic == "xbegin"
	},
	bare:          func(string, int, bool) bool { return true },
	prefix:        x86Prefix,
	SlotToAddress: x86SlotToAddress,
	AddressToSlot: x86AddressToSlot,
	LoadBySlot:    x86LoadBySlot,
	Escapes:       x86Escapes,
}

func x86Prefix(word string) bool {
	switch word {
	case "lock", "rep", "repe", "repz", "repne", "repnz", "notrack", "bnd", "data16", "data32", "addr32",
		"rex64", "rex.W", "rex", "xacquire", "xrelease", "cs", "ds", "es", "fs", "gs", "ss":
		return true
	}
	return len(word) > 0 && word[0] == '{'
}

func x86SlotToAddress(stmt, symbol, replacement string) (string, bool) {
	op, args, _ := strings.Cut(strings.TrimSpace(stmt), "\t")
	slot := symbol + "@GOTPCREL(%rip)"
	rest, ok := strings.CutPrefix(args, "*")
	switch {
	case (op == "call" || op == "jmp" || op == "callq" || op == "jmpq") && ok && rest == slot:
		return op + "\t" + replacement, true
	case op == "movq" && strings.HasPrefix(args, slot+", %"):
		return "leaq\t" + replacement + "(%rip)" + args[len(slot):], true
	}
	return "", false
}

// x86AddressToSlot knows lea of the symbol or of a place in it, and mov of its
// 32-bit address.
func x86AddressToSlot(stmt, symbol string) (string, bool) {
	op, args, _ := strings.Cut(strings.TrimSpace(stmt), "\t")
	address, register, ok := strings.Cut(args, ", %")
	switch {
	case !ok:
		return "", false
	case op == "leaq":
		if address, ok = strings.CutSuffix(address, "(%rip)"); !ok {
			return "", false
		}
	case op == "movl" && strings.HasPrefix(address, "$") && len(register) >= 2:
		address = address[1:]
		if register[0] == 'e' {
			register = "r" + register[1:]
		} else if register = strings.TrimSuffix(register, "d"); register[0] != 'r' {
			return "", false
		}
	default:
		return "", false
	}
	offset, ok := x86Offset(address, symbol)
	if !ok {
		return "", false
	}
	slot := "movq\t" + symbol + "@GOTPCREL(%rip), %" + register
	if offset != "" {
		slot += "\n\tleaq\t" + offset + "(%" + register + "), %" + register
	}
	return slot, true
}

// x86Offset returns what address adds to a symbol, "" for nothing.
func x86Offset(address, symbol string) (offset string, ok bool) {
	if address == symbol {
		return "", true
	}
	if offset, ok = strings.CutSuffix(address, "+"+symbol); ok {
		return offset, true
	}
	return strings.CutPrefix(address, symbol+"+")
}

// x86Loads are the moves from memory that set all of a general register: the
// value is that of the destination's size.
var x86Loads = map[string]int{
	"movq": 64, "movsbq": 64, "movswq": 64, "movslq": 64,
	"movl": 32, "movzbl": 32, "movzwl": 32, "movsbl": 32, "movswl": 32,
}

// x86LoadBySlot knows plain loads of general registers but for the stack
// pointer. The address goes through the register that is loaded; none of the
// instructions changes a flag. The displacement has four bytes, which no
// compiler gives to one that is so small: it tells the pair from an address that
// is read from a slot and a load that the compiler wrote.
func x86LoadBySlot(stmt, symbol string) (string, bool) {
	op, args, _ := strings.Cut(strings.TrimSpace(stmt), "\t")
	address, register, ok := strings.Cut(args, "(%rip), %")
	size, known := x86Loads[op]
	if !ok || !known {
		return "", false
	}
	whole, ok := x86Whole(register, size)
	if !ok {
		return "", false
	}
	offset, ok := x86Offset(address, symbol)
	if !ok {
		return "", false
	}
	if offset == "" {
		offset = "0"
	}
	if n, err := strconv.Atoi(offset); err != nil || n < 0 || n > 127 {
		return "", false
	}
	return "movq\t" + symbol + "@GOTPCREL(%rip), %" + whole + "\n\t{disp32} " + op + "\t" + offset + "(%" + whole + "), %" + register, true
}

// x86Whole returns the register of 64 bits of which the named one, of the given
// size, is the lower part.
func x86Whole(register string, size int) (string, bool) {
	for _, old := range []string{"ax", "bx", "cx", "dx", "si", "di", "bp"} {
		if size == 64 && register == "r"+old || size == 32 && register == "e"+old {
			return "r" + old, true
		}
	}
	for _, n := range []string{"8", "9", "10", "11", "12", "13", "14", "15"} {
		if size == 64 && register == "r"+n || size == 32 && register == "r"+n+"d" {
			return "r" + n, true
		}
	}
	return "", false
}
