package kpack

import (
	"debug/elf"

	"github.com/fother/fother/kpack/elfobj"
)

// tlsX86_64: variant II, in which an executable's block ends at the thread
// pointer. Source: x86-64 psABI 11, "Thread-Local Storage" and its relocations.
var tlsX86_64 = tlsMachine{
	offset: uint32(elf.R_X86_64_TPOFF64), module: uint32(elf.R_X86_64_DTPMOD64), descriptor: uint32(elf.R_X86_64_TLSDESC),
	block:    func(size, align uint64) int64 { return -int64(alignUp(size, align)) },
	resolver: []byte{0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x8b, 0x40, 0x08, 0xc3}, // endbr64; mov 8(%rax), %rax; ret
	addend:   -4,                                                           // the field ends the instruction
	call:     uint32(elf.R_X86_64_TLSDESC_CALL),
	relax:    relaxTLSX86_64,
}

// threadPointer is mov %fs:0, %rax.
var threadPointer = []byte{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}

// relaxTLSX86_64 follows the psABI's tables of code sequences (11.1.2).
func relaxTLSX86_64(code []byte, r, next elfobj.Reloc, own bool) (relaxed, error) {
	bad := relaxed{}
	at := int(r.Offset)
	if r.Offset > uint64(len(code)) || at < 3 && r.Type != uint32(elf.R_X86_64_TLSDESC_CALL) {
		return bad, errSequence
	}
	direct := func(at int, more int64) relaxed {
		return relaxed{reloc: elfobj.Reloc{Offset: uint64(at), Type: uint32(elf.R_X86_64_TPOFF32), Symbol: r.Symbol, Addend: r.Addend + more}}
	}
	switch elf.R_X86_64(r.Type) {
	case elf.R_X86_64_GOTTPOFF:
		if own && !immediateTLS(code[at-3:]) {
			return bad, errSequence
		} else if own {
			return direct(at, 4), nil
		}
	case elf.R_X86_64_GOTPC32_TLSDESC:
		return descriptorTLS(code, r, own, direct)
	case elf.R_X86_64_TLSDESC_CALL:
		if at+2 > len(code) || code[at] != 0xff || code[at+1] != 0x10 {
			return bad, errSequence
		}
		copy(code[at:], []byte{0x66, 0x90}) // xchg %ax, %ax
		return relaxed{none: true}, nil
	case elf.R_X86_64_TLSGD:
		return generalTLS(code, r, next, own, direct)
	case elf.R_X86_64_TLSLD:
		return localTLS(code, r, next)
	case elf.R_X86_64_DTPOFF32:
		return direct(at, 0), nil
	case elf.R_X86_64_DTPOFF64:
		x := direct(at, 0)
		x.reloc.Type = uint32(elf.R_X86_64_TPOFF64)
		return x, nil
	}
	return relaxed{reloc: r}, nil
}

// immediateTLS makes of "mov x@gottpoff(%rip), %reg" a mov of an immediate,
// of add the same or lea.
func immediateTLS(insn []byte) bool {
	if len(insn) < 7 || insn[0] != 0x48 && insn[0] != 0x4c || insn[2]&0xc7 != 5 {
		return false
	}
	reg, high := insn[2]>>3&7, insn[0]>>2&1
	switch {
	case insn[1] == 0x8b: // mov
		insn[0], insn[1], insn[2] = 0x48|high, 0xc7, 0xc0|reg
	case insn[1] == 0x03 && reg == 4: // add, to rsp or r12, for which lea needs a byte more
		insn[0], insn[1], insn[2] = 0x48|high, 0x81, 0xc0|reg
	case insn[1] == 0x03: // add
		insn[0], insn[1], insn[2] = 0x48|high|high<<2, 0x8d, 0x80|reg<<3|reg
	default:
		return false
	}
	return true
}

// descriptorTLS rewrites lea x@tlsdesc(%rip), %reg.
func descriptorTLS(code []byte, r elfobj.Reloc, own bool, direct func(int, int64) relaxed) (relaxed, error) {
	at := int(r.Offset)
	insn := code[at-3:]
	if len(insn) < 7 || insn[0]&0xfb != 0x48 || insn[1] != 0x8d || insn[2]&0xc7 != 5 {
		return relaxed{}, errSequence
	}
	if own {
		insn[0], insn[1], insn[2] = 0x48|insn[0]>>2&1, 0xc7, 0xc0|insn[2]>>3&7
		return direct(at, 4), nil
	}
	insn[1] = 0x8b
	r.Type = uint32(elf.R_X86_64_GOTTPOFF)
	return relaxed{reloc: r}, nil
}

// generalTLS rewrites data16 lea x@tlsgd(%rip), %rdi and the call of
// __tls_get_addr, padded to 8 bytes, behind it.
func generalTLS(code []byte, r, next elfobj.Reloc, own bool, direct func(int, int64) relaxed) (relaxed, error) {
	at := int(r.Offset)
	if at < 4 || at+12 > len(code) || string(code[at-4:at]) != "\x66\x48\x8d\x3d" || next.Offset != r.Offset+8 {
		return relaxed{}, errSequence
	}
	if call := string(code[at+4 : at+8]); call != "\x66\x66\x48\xe8" && call != "\x66\x48\xff\x15" {
		return relaxed{}, errSequence
	}
	n := at - 4 + copy(code[at-4:], threadPointer)
	x := direct(at+8, 4)
	if own {
		copy(code[n:], []byte{0x48, 0x8d, 0x80}) // lea x@tpoff(%rax), %rax
	} else {
		copy(code[n:], []byte{0x48, 0x03, 0x05}) // add x@gottpoff(%rip), %rax
		x.reloc.Type, x.reloc.Addend = uint32(elf.R_X86_64_GOTTPOFF), r.Addend
	}
	clear(code[at+8 : at+12])
	x.next = true
	return x, nil
}

// localTLS rewrites lea x@tlsld(%rip), %rdi and the call behind it: offsets
// count from the thread pointer then.
func localTLS(code []byte, r, next elfobj.Reloc) (relaxed, error) {
	at := int(r.Offset)
	end := at + 9
	if at+10 <= len(code) && string(code[at+4:at+6]) == "\xff\x15" {
		end = at + 10
	} else if at+9 > len(code) || code[at+4] != 0xe8 {
		return relaxed{}, errSequence
	}
	if string(code[at-3:at]) != "\x48\x8d\x3d" || next.Offset != uint64(end-4) {
		return relaxed{}, errSequence
	}
	start := at - 3
	pad := end - start - len(threadPointer)
	for i := range pad {
		code[start+i] = 0x66
	}
	copy(code[start+pad:], threadPointer)
	return relaxed{none: true, next: true}, nil
}
