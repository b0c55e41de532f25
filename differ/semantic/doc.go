// Package semantic compares what the debug data of two linked builds says of
// types, variables and functions: what a running program has in its memory, and
// what code outside a patch takes for granted.
//
// [Open] reads the debug data of a linked file, [Compare] that of two builds of
// one. The [Report] has a [Change] for each struct, union, class or enumeration
// whose layout changed, for each variable with storage whose type changed, and
// for each function whose signature did, with what changed and, for types, who
// uses them. Objects that live when a patch goes in have the old layout: a
// change is harmless only where the debug data proves that there are none.
//
// Declarations are the same if they have one name in one unit of both builds:
// two units may use a name for two things. They are compared by their
// structure. Typedefs are followed, qualifiers and the names of fields and
// parameters count for nothing. What is pointed to is compared by its name where
// it has one, and else by its structure. A type without a name is compared where
// it hangs: at its typedef, at the field or the variable of that type.
//
// Proof that no object of a changed type outlives the functions that the patch
// replaces: both builds have it only as the type of local variables that are not
// static, all of them in functions of which no call is under way when the patch
// goes in, nothing points to it, and no function takes or returns one. A cast
// makes such a pointer, and only clang's debug data of C has the types of casts:
// in code that gcc compiled, and in C++, no type with a name is proved harmless.
// A type without a name that only local variables have cannot be pointed to, and
// is not compared. Bytes that are copied out of an object are none.
//
// DWARF 2 to 5 are read, from whole files. Types that are not in the file
// (-gsplit-dwarf), type units (-fdebug-types-section) and line numbers alone
// (-g1) are refused with [ErrForm]. It compares no code and no values, and knows
// nothing of patches.
package semantic
