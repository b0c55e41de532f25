package kpack

import "github.com/fother/fother/specs"

// hookMachine is code that makes the thread of hooks and runs in it.
type hookMachine struct {
	code []byte
	// created is where in it the borrowed thread has made the other one, home
	// what follows its part, exit where the other one ends itself.
	created, home, exit uint64
	// put writes the code to address at. The control block is at control.
	put func(dst []byte, at, control specs.Addr) error
	// below and above are how much memory the thread has on either side of its
	// thread pointer, in bytes; all zeros, so that who comes upon it by accident
	// harms nobody. self are the offsets in it of words that lead to itself.
	below, above uint64
	self         []uint64
}

// Below the thread pointer is where the C library keeps errno and the like, above
// it its thread control block. That begins with its own address, and so does its third
// word. Source: x86-64 psABI, "Thread-Local Storage"; glibc, tcbhead_t.
var hooksX86_64 = hookMachine{
	code: hookCodeX86_64, created: 0x60, home: 0x9c, exit: 0xfa, put: putHooksX86_64, below: 16 << 10, above: 4 << 10, self: []uint64{0, 16},
}

// hookCodeX86_64 has the flags, the stack and all registers but those that it puts
// back for the borrowed thread as they were, so that this needs nobody who comes
// after it. The two gaps are filled by putHooksX86_64. The new thread waits until it
// is let go, and not for ever.
var hookCodeX86_64 = []byte{
	0x4c, 0x8d, 0x0d, 0, 0, 0, 0, // lea control(%rip), %r9
	0xb8, 14, 0, 0, 0, // mov $SYS_rt_sigprocmask, %eax
	0xbf, 2, 0, 0, 0, // mov $SIG_SETMASK, %edi
	0x49, 0x8d, 0x71, hookMask, // lea mask(%r9), %rsi
	0x49, 0x8d, 0x51, hookOldMask, // lea old(%r9), %rdx
	0x41, 0xba, 8, 0, 0, 0, // mov $8, %r10d
	0x0f, 0x05, // syscall
	0xb8, 56, 0, 0, 0, // mov $SYS_clone, %eax
	// CLONE_VM|FS|FILES|SIGHAND|THREAD|SYSVSEM|SETTLS|PARENT_SETTID|CHILD_CLEARTID
	0xbf, 0x00, 0x0f, 0x3d, 0x00, // mov $flags, %edi
	0x49, 0x8b, 0x71, hookStackAt, // mov stack(%r9), %rsi
	0x49, 0x8d, 0x51, hookThread, // lea thread(%r9), %rdx
	0x49, 0x89, 0xd2, // mov %rdx, %r10
	0x4d, 0x8b, 0x41, hookTP, // mov tp(%r9), %r8
	0x0f, 0x05, // syscall
	0x48, 0x89, 0xc1, // mov %rax, %rcx
	0xe3, 0x5b, // jrcxz child
	0x49, 0x89, 0x41, hookCreated, // mov %rax, created(%r9)
	0xb8, 14, 0, 0, 0, // mov $SYS_rt_sigprocmask, %eax
	0xbf, 2, 0, 0, 0, // mov $SIG_SETMASK, %edi
	0x49, 0x8d, 0x71, hookOldMask, // lea old(%r9), %rsi
	0xba, 0, 0, 0, 0, // mov $0, %edx
	0x41, 0xba, 8, 0, 0, 0, // mov $8, %r10d
	0x0f, 0x05, // syscall
	// created:
	0x49, 0x8b, 0x41, hookHome, // mov home(%r9), %rax
	0x49, 0x8b, 0x49, hookHome + 8, // … %rcx
	0x49, 0x8b, 0x51, hookHome + 16, // … %rdx
	0x49, 0x8b, 0xb1, hookHome + 24, 0, 0, 0, // … %rsi
	0x49, 0x8b, 0xb9, hookHome + 32, 0, 0, 0, // … %rdi
	0x4d, 0x8b, 0x81, hookHome + 40, 0, 0, 0, // … %r8
	0x4d, 0x8b, 0x91, hookHome + 56, 0, 0, 0, // … %r10
	0x4d, 0x8b, 0x99, hookHome + 64, 0, 0, 0, // … %r11
	0x4d, 0x8b, 0x89, hookHome + 48, 0, 0, 0, // … %r9
	0xff, 0x25, 0, 0, 0, 0, // jmp *home(%rip)
	// child:
	0xfc,       // cld
	0xdb, 0xe3, // fninit
	0x4c, 0x89, 0xcb, // mov %r9, %rbx
	0x0f, 0xae, 0x53, hookMXCSR, // ldmxcsr mxcsr(%rbx)
	0x31, 0xed, // xor %ebp, %ebp
	// wait:
	0x83, 0x7b, hookGo, 0, // cmpl $0, go(%rbx)
	0x75, 0x14, // jne run
	0xff, 0x4b, hookTurns, // decl turns(%rbx)
	0x78, 0x47, // js exit
	0xb8, 35, 0, 0, 0, // mov $SYS_nanosleep, %eax
	0x48, 0x8d, 0x7b, hookNap, // lea nap(%rbx), %rdi
	0x31, 0xf6, // xor %esi, %esi
	0x0f, 0x05, // syscall
	0xeb, 0xe6, // jmp wait
	// run:
	0x4c, 0x8b, 0x63, hookList, // mov list(%rbx), %r12
	// next:
	0x49, 0x8b, 0x04, 0x24, // mov (%r12), %rax
	0x48, 0x85, 0xc0, // test %rax, %rax
	0x74, 0x24, // jz done
	0xff, 0xd0, // call *%rax
	0x49, 0x83, 0xc4, 8, // add $8, %r12
	0x85, 0xc0, // test %eax, %eax
	0x74, 0x15, // jz good
	0x83, 0x7b, hookResult, 0, // cmpl $0, result(%rbx)
	0x75, 0x09, // jne told
	0x8b, 0x4b, hookCount, // mov count(%rbx), %ecx
	0x89, 0x4b, hookFailed, // mov %ecx, failed(%rbx)
	0x89, 0x43, hookResult, // mov %eax, result(%rbx)
	// told:
	0x83, 0x7b, hookStops, 0, // cmpl $0, stops(%rbx)
	0x75, 0x05, // jne done
	// good:
	0xff, 0x43, hookCount, // incl count(%rbx)
	0xeb, 0xd3, // jmp next
	// done:
	0xc7, 0x43, hookDone, 1, 0, 0, 0, // movl $1, done(%rbx)
	// exit:
	0xb8, 60, 0, 0, 0, // mov $SYS_exit, %eax
	0x31, 0xff, // xor %edi, %edi
	0x0f, 0x05, // syscall
	0x0f, 0x0b, // ud2
}

func putHooksX86_64(dst []byte, at, control specs.Addr) error {
	copy(dst, hookCodeX86_64)
	for _, gap := range []struct {
		offset int
		to     specs.Addr
	}{{3, control}, {152, control + hookHomeEnd - 8}} {
		if err := putS32(dst[gap.offset:], int64(gap.to-at)-int64(gap.offset)-4); err != nil {
			return err
		}
	}
	return nil
}
