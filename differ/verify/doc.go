// Package verify holds a patch against the two linked builds that it came
// from. It is an oracle: it reads ELF files only, no assembly, and shares no
// code with the comparison that makes patches, so that the two have to agree
// for different reasons.
//
// In the order in which they are called:
//
//   - [Compare] walks over all functions and named data of the original and
//     the patched build. Code is decoded as far as it takes to find operands
//     that hold addresses; what they point to is compared by meaning
//     (function, object and offset, import, content of a constant), all else
//     byte by byte.
//   - [Check] holds the [Report] against what a patch covers: what changed and
//     is neither covered nor refused is missing, what did not is needless.
//   - [CheckPatch] walks over the linked image of the patch in the same way,
//     and compares each new body with the function of the patched build.
//
// # What it cannot see
//
// Linked files say where an operand points, not which symbol it was written
// with. An address one past the end of one object is the address of the next;
// which was meant is guessed from the function's other operands, and a guess
// that nothing supports counts as a difference. Numbers in executables that
// are not position independent may look like addresses. Padding between
// functions, debug information and the sections that only tools read are not
// compared.
package verify
