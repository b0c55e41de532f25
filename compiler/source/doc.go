// Package source prepares source trees for the two builds of a live patch.
//
//	Fetch   makes a tree of an archive or an address
//	Copy    makes the work tree
//	Apply   applies the fix to it, all of it or nothing
//
// A fix moves the lines below it, and with them the value of __LINE__ in
// functions that it does not touch: each would come out changed. Apply keeps
// line numbers where they were by #line directives before the next top-level
// declaration after each change, in C and C++ files.
//
// Patches are unified diffs, git's included, and applied like by patch -p1
// without fuzz: context must match to the letter, but may have moved. The
// reader is our own, because go-gitdiff strips the first component of names in
// git's headers only, cannot say whether it did, and does not look for context
// that moved.
package source
