// Package store keeps what capture sees of a build: content-addressed blobs,
// shared by both builds of a tree, and one small record for each invocation of
// an assembler or linker.
//
//	STORE/blobs/ab/cdef…       files by SHA-256
//	STORE/STAGE/RECORD.json    records of one build, named by time
//	STORE/shim/as, ld, …       symbolic links to fother-cc, for COMPILER_PATH
//	STORE/path/…               the same for PATH
//	STORE/tools/KEY            the real tool of a compiler, remembered
//	STORE/tmp/                 files that are being written
//
// Everything is written beside its place and renamed into it, so that any
// number of processes may write at once and a reader never meets half a file.
package store
