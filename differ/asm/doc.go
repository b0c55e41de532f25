// Package asm reads GNU assembly as gcc and clang write it into a model that package
// differ compares and prints from.
//
// [Parse] goes over the text once. It cuts it into statements, follows the
// section directives, and hands each statement that makes bytes to exactly one
// [Item]: a function, a part of one, an object, a string, a jump table. Labels
// and symbol attributes are collected beside the items. Nothing is copied out
// of the text: statements are offsets into it. [Unit.Refs] finds the symbols
// that a statement mentions.
//
// [NewPair] takes the texts of two builds, in which most functions are alike:
// these become one statement each, with the symbols that they mention, a [Fold].
//
// What differs between architectures is in a [Dialect].
//
// The package does not interpret instructions or expressions, and does not
// assemble. A directive it does not know is a [SyntaxError], never skipped.
package asm
