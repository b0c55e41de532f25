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
// that nothing supports counts as a difference. A new object that takes the
// place of another right behind an array, in a function that uses the array as
// well and is not the only user of the new one, passes for the array's end.
//
// Numbers in executables that are not position independent may look like
// addresses. Numbers added to an address in a register (thread-local storage in
// the local models, section anchors of aarch64) are told apart by the layout of
// both files as far as that goes: aarch64 code compiled with section anchors
// counts as changed when data is added in front of what it uses. Constants
// without a name end where the next thing that is referred to begins, but for
// strings that an object has in a section of strings.
//
// Functions whose names differ in numbers only and that keep state are told apart
// by what uses them, and their variables with them: one that takes the place of
// another for all of its users passes for the other, as far as code and initial
// values are the same.
//
// A distance that is the value of an absolute symbol of both builds, and leads to
// where nothing begins, is taken for that symbol.
//
// Padding between functions, call frame information, debug information and
// sections that only tools read are not compared; exception tables are. Data
// that has no symbol is compared where code or data refers to it.
package verify
