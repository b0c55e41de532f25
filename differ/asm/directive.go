package asm

import "strings"

// action is what the parser does with a directive.
type action uint8

const (
	aUnknown action = iota
	aNoise          // says nothing about the running program
	aBytes          // makes bytes, may name symbols
	aLiteral        // makes bytes, names none
	aAlign
	aCFI
	aMark
	aMode
	aSection
	aPush
	aPop
	aPrevious
	aIdent
	aGlobal
	aWeak
	aLocal
	aVisibility
	aType
	aSize
	aCommon
	aSet
	aSymver
	aWeakref
	aIfDefined
	aElse
	aEndIf
	aRefused
)

// directives are the ones that gcc, clang and common inline assembly use.
// Source: as(1) manual, "Pseudo Ops", and the x86 and AArch64 chapters.
var directives = map[string]action{
	".file": aNoise, ".loc": aNoise, ".line": aNoise, ".ln": aNoise, ".loc_mark_labels": aNoise, ".addrsig": aNoise,
	".addrsig_sym": aNoise, ".appfile": aNoise, ".code64": aNoise, ".att_syntax": aNoise, ".att_mnemonic": aNoise,
	".cfi_sections": aNoise, ".title": aNoise, ".version": aNoise, ".end": aRefused,

	".byte": aBytes, ".2byte": aBytes, ".4byte": aBytes, ".8byte": aBytes, ".word": aBytes, ".short": aBytes,
	".hword": aBytes, ".value": aBytes, ".long": aBytes, ".int": aBytes, ".quad": aBytes, ".xword": aBytes,
	".dword": aBytes, ".octa": aBytes, ".uleb128": aBytes, ".sleb128": aBytes, ".inst": aBytes, ".dc.b": aBytes,
	".dc.w": aBytes, ".dc.l": aBytes, ".dc.a": aBytes, ".zero": aBytes, ".skip": aBytes, ".space": aBytes, ".fill": aBytes, ".nops": aBytes,

	".string": aLiteral, ".string8": aLiteral, ".string16": aLiteral, ".string32": aLiteral, ".ascii": aLiteral,
	".asciz": aLiteral, ".base64": aLiteral, ".float": aLiteral, ".double": aLiteral, ".single": aLiteral,
	".float16": aLiteral, ".tfloat": aLiteral, ".bfloat16": aLiteral,

	".align": aAlign, ".p2align": aAlign, ".p2alignw": aAlign, ".p2alignl": aAlign, ".balign": aAlign,
	".balignw": aAlign, ".balignl": aAlign,

	".tlsdesccall": aMark, ".tlsdescadd": aMark, ".tlsdescldr": aMark, ".variant_pcs": aMark,
	".arch": aMode, ".cpu": aMode, ".arch_extension": aMode, ".tune": aMode,

	".section": aSection, ".text": aSection, ".data": aSection, ".bss": aSection, ".pushsection": aPush,
	".popsection": aPop, ".previous": aPrevious,

	".ident": aIdent, ".globl": aGlobal, ".global": aGlobal, ".weak": aWeak, ".local": aLocal,
	".hidden": aVisibility, ".protected": aVisibility, ".internal": aVisibility, ".type": aType, ".size": aSize,
	".comm": aCommon, ".lcomm": aCommon, ".set": aSet, ".equ": aSet, ".symver": aSymver, ".weakref": aWeakref,

	".ifdef": aIfDefined, ".ifndef": aIfDefined, ".ifnotdef": aIfDefined, ".else": aElse, ".endif": aEndIf,

	".intel_syntax": aRefused, ".intel_mnemonic": aRefused, ".code32": aRefused, ".code16": aRefused, ".code16gcc": aRefused,
	".macro": aRefused, ".include": aRefused, ".incbin": aRefused, ".if": aRefused, ".elseif": aRefused,
	".rept": aRefused, ".irp": aRefused, ".irpc": aRefused, ".org": aRefused, ".subsection": aRefused,
}

// named is an entry of directiveTable.
type named struct {
	name   string
	action action
}

// directiveTable has the directives again, at their hashes or behind them: the
// parser looks up one on nearly every line.
var directiveTable = func() (t [512]named) {
	for name, a := range directives {
		h := directiveHash(name)
		for t[h].name != "" {
			h = (h + 1) % uint(len(t))
		}
		t[h] = named{name, a}
	}
	return t
}()

// directiveHash returns the place where the search for a directive begins. The
// name has two bytes or more.
func directiveHash(name string) uint {
	n := len(name)
	return (uint(name[1])*7 + uint(name[n/2])*31 + uint(name[n-1])*5 + uint(n)*67) % 512
}

// actionOf returns what to do with the directive of that name.
func actionOf(name string) action {
	if len(name) < 2 {
		return aUnknown
	}
	for h := directiveHash(name); directiveTable[h].name != ""; h = (h + 1) % uint(len(directiveTable)) {
		if directiveTable[h].name == name {
			return directiveTable[h].action
		}
	}
	if strings.HasPrefix(name, ".cfi_") {
		return aCFI
	}
	return aUnknown
}

// reason says why a directive is not taken.
func reason(name string, a action) string {
	if a == aUnknown {
		return "unknown directive"
	}
	switch name {
	case ".intel_syntax", ".intel_mnemonic":
		return intelSyntax
	case ".code32", ".code16", ".code16gcc":
		return "code for another processor mode is not supported"
	case ".incbin", ".include":
		return "content from another file is not supported"
	}
	return "assembler macros, conditions and repetitions are not supported"
}

// kindOfSection classifies a section by its name and flags. Source: gABI,
// "Special Sections"; binutils' default flags for names without any.
func kindOfSection(name, flags, args string) SectionKind {
	if k, ok := specialSection(name); ok {
		if k == ROData && strings.Contains(flags, "w") {
			return Writable // an object that somebody put there by name
		}
		return k
	}
	switch {
	case !strings.ContainsRune(flags, 'a') || toolSection(name):
		return Ignored
	case strings.ContainsRune(flags, 'T'):
		return TLS
	case strings.ContainsRune(flags, 'x'):
		return Text
	}
	return Custom
}

// specialSection classifies the names that have a meaning of their own.
func specialSection(name string) (SectionKind, bool) {
	is := func(base string) bool {
		return name == base || strings.HasPrefix(name, base) && name[len(base)] == '.'
	}
	switch {
	case is(".text"):
		return Text, true
	case is(".data.rel.ro"):
		return RelRO, true
	case is(".rodata"), is(".lrodata"):
		return ROData, true
	case is(".data"), is(".ldata"), is(".sdata"):
		return Writable, true
	case is(".bss"), is(".lbss"), is(".sbss"):
		return Zero, true
	case is(".tdata"), is(".tbss"):
		return TLS, true
	case is(".init_array"), is(".fini_array"), is(".preinit_array"), is(".ctors"), is(".dtors"), name == ".init", name == ".fini":
		return Init, true
	case is(".gcc_except_table"):
		return Metadata, true
	}
	return 0, false
}

// toolSection reports whether only compilers and linkers fill the section of that
// name, with what goes with the code that it is about, though the running program
// may have it: lists of entries to patch, properties of the object. That of other
// sections which are not debug data counts, whatever they are called.
func toolSection(name string) bool {
	return name == "__patchable_function_entries" || strings.HasPrefix(name, ".note.gnu.") || strings.HasPrefix(name, ".note.GNU-")
}

const intelSyntax = "Intel syntax is not supported"
