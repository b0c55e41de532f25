package asm

import (
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
	offset := ""
	if address != symbol {
		if before, found := strings.CutSuffix(address, "+"+symbol); found {
			offset = before
		} else if offset, found = strings.CutPrefix(address, symbol+"+"); !found {
			return "", false
		}
	}
	slot := "movq\t" + symbol + "@GOTPCREL(%rip), %" + register
	if offset != "" {
		slot += "\n\tleaq\t" + offset + "(%" + register + "), %" + register
	}
	return slot, true
}
