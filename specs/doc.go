// Package specs is Fother's vocabulary: what a live patch is made from, what
// it is made for, and how addresses are told apart.
//
// The words, in the order in which a patch comes to be:
//
//   - A [Spec] names a source tree, the source patches that fix it and the
//     commands that build it.
//   - The tree is built twice, as the original and as the patched build
//     ([Stage]).
//   - Each executable or shared library that changed is a target, known by its
//     [BuildID] and by nothing else.
//   - A patch for a target belongs to a [Series] and has a [Level] in it. A
//     higher level of one series replaces the lower; series coexist.
//   - An address in a linked file is a [VAddr], an address in a process an
//     [Addr]; a [Bias] is the distance between the two.
//
// Package specs imports the standard library only. Reading specs from YAML is
// the work of package specfile, instruction sets are described by package arch.
package specs
