// Package compiler captures what a build does: every assembly text that its
// compilers produce and every link, without a change to the build or to what
// comes out of it.
//
// In call order:
//
//   - package source copies the tree and applies the fix to the copy;
//   - [Run] runs the build's commands with shims in the compiler's way, once
//     for each [specs.Stage], at the same path;
//   - [Load] reads what a build left in the store: units (one assembly text
//     each) and links, and which units make up which linked file;
//   - [Compare] pairs the linked files of both builds and their units.
//
// gcc looks for as and ld along COMPILER_PATH before its own folders. The
// program fother-cc stands there under those names; see package shim in
// compiler/internal. As CC= and CXX= the same program sets COMPILER_PATH for
// one compiler.
//
// A build may continue an earlier one in its tree, where make runs only what is
// not up to date: see [Options.Base]. When the process that builds is gone, its
// commands are ended with all that they started.
//
// clang has an assembler of its own: the program stands on PATH under its name
// too, lets it do what the build wants, and runs its compilations a second time
// for their text, which must give the object.
//
// What goes round the shims is not trusted: an object of a link that no shim
// saw must be the same, byte for byte, in both builds, else [Compare] names it.
//
// The package does not look into assembly texts; package differ does.
package compiler
