package kpack

import "github.com/fother/fother/specs"

// finderX86_64 is int _dl_find_object(void *pc, struct dl_find_object *result)
// for one range of addresses. The fields are flags, start, end, link map and
// .eh_frame_hdr, 8 bytes each (glibc, dlfcn.h). The five gaps are filled by
// putFinderX86_64.
var finderX86_64 = []byte{
	0xf3, 0x0f, 0x1e, 0xfa, // endbr64
	0x48, 0x8d, 0x15, 0, 0, 0, 0, // lea lo(%rip), %rdx
	0x48, 0x39, 0xd7, // cmp %rdx, %rdi
	0x72, 0x30, // jb pass
	0x48, 0x8d, 0x0d, 0, 0, 0, 0, // lea hi(%rip), %rcx
	0x48, 0x39, 0xcf, // cmp %rcx, %rdi
	0x73, 0x24, // jae pass
	0x31, 0xc0, // xor %eax, %eax
	0x48, 0x89, 0x06, // mov %rax, (%rsi)
	0x48, 0x89, 0x56, 0x08, // mov %rdx, 8(%rsi)
	0x48, 0x89, 0x4e, 0x10, // mov %rcx, 16(%rsi)
	0x48, 0x8b, 0x0d, 0, 0, 0, 0, // mov map(%rip), %rcx
	0x48, 0x89, 0x4e, 0x18, // mov %rcx, 24(%rsi)
	0x48, 0x8d, 0x0d, 0, 0, 0, 0, // lea header(%rip), %rcx
	0x48, 0x89, 0x4e, 0x20, // mov %rcx, 32(%rsi)
	0xc3,                   // ret
	0xff, 0x25, 0, 0, 0, 0, // pass: jmp *next(%rip)
	0xcc,
}

func putFinderX86_64(dst []byte, at specs.Addr, text specs.Range[specs.Addr], header, next, linkMap specs.Addr) error {
	copy(dst, finderX86_64)
	for _, gap := range []struct {
		offset int
		to     specs.Addr
	}{{7, text.Lo}, {19, text.Hi}, {44, linkMap}, {55, header}, {66, next}} {
		if err := putS32(dst[gap.offset:], int64(gap.to-at)-int64(gap.offset)-4); err != nil {
			return err
		}
	}
	return nil
}
