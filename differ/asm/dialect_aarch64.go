package asm

import (
	"strings"

	"github.com/fother/fother/specs/arch"
)

// aarch64 is A64 syntax as GNU as reads it. Source: as(1) manual, "AArch64
// Dependent Features".
var aarch64 = Dialect{
	Arch:        arch.AArch64,
	Comment:     "//",
	LineComment: "#",
	never:       '%', // x86 registers
	TypeMark:    '%',
	AlignPower:  true,
	SlotPair:    true,
	branch: func(mnemonic, _ string) bool {
		switch mnemonic {
		case "b", "bl", "cbz", "cbnz", "tbz", "tbnz":
			return true
		}
		return a64Conditional(mnemonic)
	},
	bare: func(mnemonic string, n int, last bool) bool {
		switch mnemonic {
		case "b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp":
			return last
		case "ldr", "ldrsw", "prfm":
			return n == 1 && last
		}
		return last && a64Conditional(mnemonic)
	},
	bareWord: func(mnemonic, operands string) bool {
		switch mnemonic {
		case "b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp":
			return true
		case "ldr", "ldrsw", "prfm":
			return !a64Indirect(operands)
		}
		return a64Conditional(mnemonic)
	},
	mayName:       a64MayName,
	naming:        "abclpt",
	symbolMark:    ":lo12:",
	prefix:        func(string) bool { return false },
	SlotToAddress: a64SlotToAddress,
}

// a64Indirect reports whether the second operand is one address in brackets.
// Lines behind the first do not matter.
func a64Indirect(operands string) bool {
	i := 0
	for ; i < len(operands) && operands[i] != ','; i++ {
		if operands[i] == '\n' {
			return false
		}
	}
	if !strings.HasPrefix(operands[i:], ", [") {
		return false
	}
	for ; i < len(operands) && operands[i] != ']'; i++ {
		if operands[i] == '\n' {
			return false
		}
	}
	if i == len(operands) {
		return false
	}
	switch after := operands[i+1:]; {
	case after == "" || after[0] == '\n' || after[0] == ',':
		return true
	default:
		return after[0] == '!' && (len(after) == 1 || after[1] == '\n')
	}
}

// a64MayName looks at the first letters of an instruction only.
func a64MayName(stmt string) bool {
	if len(stmt) < 4 {
		return true
	}
	switch stmt[0] {
	case 'b':
		return true
	case 'c', 't':
		return stmt[1] == 'b'
	case 'a':
		return stmt[1] == 'd' && stmt[2] == 'r'
	case 'p':
		return stmt[1] == 'r'
	case 'l':
		return stmt[1] == 'd' && stmt[2] == 'r' && !a64Indirect(stmt)
	}
	return false
}

// a64Conditional reports whether the mnemonic is b.cc or bcc.
func a64Conditional(m string) bool {
	if len(m) < 3 || m[0] != 'b' {
		return false
	}
	switch strings.TrimPrefix(m[1:], ".") {
	case "eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al",
		"any", "none", "nlast", "last", "first", "nfrst", "pmore", "plast", "tcont", "tstop":
		return true
	}
	return false
}

func a64SlotToAddress(stmt, symbol, replacement string) (string, bool) {
	if page := ":got:" + symbol; strings.HasPrefix(stmt, "adrp\t") && strings.HasSuffix(stmt, page) {
		return strings.TrimSuffix(stmt, page) + replacement, true
	}
	rest, ok := strings.CutPrefix(stmt, "ldr\t")
	to, from, found := strings.Cut(rest, ", [")
	base, slot, _ := strings.Cut(from, ", ")
	if ok && found && strings.TrimPrefix(slot, "#") == ":got_lo12:"+symbol+"]" {
		return "add\t" + to + ", " + base + ", :lo12:" + replacement, true
	}
	return "", false
}
