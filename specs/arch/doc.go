// Package arch describes instruction set architectures as values.
//
// An [Arch] holds facts: numbers and byte patterns that architecture manuals
// and psABIs give. What a package does with an architecture (relocate, build
// trampolines, read registers) it keeps in a table of its own, keyed by the
// *Arch. Nothing here depends on the machine that runs the code, so patches
// for any architecture can be made and checked on any other.
package arch
