// Package elfobj reads ELF files and ELF objects that are mapped in a process,
// and trusts neither.
//
// Two doors, one for each address space:
//
//   - [Open], [OpenFile] and [Parse] read a file: relocatable object,
//     executable or shared library. A [File] answers in link-time addresses
//     ([specs.VAddr]) and file bytes.
//   - [OpenImage] reads an object as it is mapped in a process, through an
//     io.ReaderAt over the process's memory. It needs no file, so it works
//     when the file was deleted, replaced or stripped. An [Image] answers in
//     run-time addresses ([specs.Addr]).
//
// [ReadBuildID] is for scans: it reads the program headers and the notes of a
// file, and nothing else.
//
// What is read may be hostile. Every count and size is checked against the
// size of the file, or against the object's extent in memory, before anything
// is allocated for it. Damage is answered by one error that names file,
// section and symbol; a panic is a bug of this package. Only 64-bit
// little-endian files of the architectures in package arch are read.
//
// It is the package's own reader: debug/elf provides the constants. What
// debug/elf's reader loses, this one keeps: symbol 0, section symbols,
// extended section indices, versions that are defined but hidden.
//
// It does not write ELF, apply relocations or read debug information. Debug
// sections, decompressed, and call frame information are handed out as bytes;
// packages semantic and unwind read them.
package elfobj
