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
	prefix:        func(string) bool { return false },
	SlotToAddress: a64SlotToAddress,
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
