// Package unwind walks the stacks of another process's threads by call frame
// information (CFI, the .eh_frame of each object), to tell real return
// addresses from stale words.
//
// In call order:
//
//   - [Load] reads the CFI of one mapped object into an [Object], or [New]
//     makes one of bytes at hand. This reads the process's memory and is done
//     before the process is stopped.
//   - [NewWalker] takes the process's memory and a function that finds the
//     Object for an address. A Walker keeps what it parsed, so a first walk of
//     threads that still run, whose result means nothing, makes the walks
//     during the stop fast.
//   - [Walker.Walk] takes the registers of a stopped thread and returns its
//     frames. Only if the error is nil are they all frames.
//
// A walk is used to prove that code is not in use, so it never guesses. It is
// complete only if every frame had CFI and the last one says that its caller
// is undefined, as _start and clone do. What is not sure is an error: code
// without CFI (a JIT's), damaged CFI, a caller-saved register that would have
// to be known, a stack that does not go up, too many frames. There are no frame
// pointer walks and no heuristics. Two kinds of code need no CFI: that which
// consists of the rt_sigreturn system call, which behaves as the kernel defines,
// and, where linkers make none for it, an entry of a procedure linkage table,
// if it is one instruction by instruction and branches through a place that
// a relocation of the object names.
//
// A walk sees what the thread is going to return through. It does not see
// contexts that are stored elsewhere, by setjmp, makecontext or a coroutine
// library.
//
// The package is pure: it knows no ptrace, memory is an io.ReaderAt,
// architectures are tables chosen at run time. CFI may be hostile: it is
// bounded, and never makes a panic.
//
// Sources: LSB core, "Exception Frames"; DWARF 5, sections 6.4 and 2.5; the
// psABIs' DWARF register numbers; AADWARF64.
package unwind
