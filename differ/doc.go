// Package differ compares the assembly of one unit in two builds and writes
// the assembly of a patch: text in, text out, no ELF.
//
// The pipeline, in call order:
//
//   - package asm parses both texts into items: functions, their .cold parts,
//     objects, strings, tables. It goes over functions that both builds have
//     alike but for labels and symbols only once, side by side, and keeps of
//     them what they refer to; where that turns out to differ, or somebody
//     refers into them, all is done again with their statements.
//   - survey names what each item is to a running program.
//   - correlate pairs functions and objects of the two builds, by name where
//     names are stable, else by who refers to them, content and order.
//   - compare walks paired items side by side. Labels count by what they stand
//     for, strings and constants by content; layout and debug data not at all.
//   - judge turns differences into verdicts and refusals.
//   - carry follows what changed and new functions refer to: it is carried as
//     well, or stays a reference to the original.
//     Exception tables travel with their function.
//   - emit prints what is carried.
//   - why tells for each function that is not the same, from a closed list of
//     causes ([Cause]), why it is not: what it calls in the two builds, what the
//     fix does to its source ([Fix]), and, from .loc directives, what was
//     inlined into it. What cannot be told is not guessed.
//
// [Diff] does not leave out a difference in silence: it is carried or refused by
// name ([RefusalError]). Each function is compared, each variable, each constant
// with a name, and what global symbols stand for. These do not count, because
// compilers change them as they like and no code depends on it: debug data, notes
// and what else only tools read; alignment, other than of data that others may
// need it of; where functions and data stand, other than in lists and in
// assembly that somebody wrote; unwind tables of functions whose code is the same;
// and strings, numbers and tables without a name that nothing refers to.
//
// Not done here: reading objects, binding references to addresses, deciding
// which function is too short or never returns.
package differ
