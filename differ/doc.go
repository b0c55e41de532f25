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
// [Diff] never leaves out a difference in silence: every byte of both inputs
// belongs to one item, each item is compared, and a difference is carried or
// refused by name ([RefusalError]).
//
// Not done here: reading objects, binding references to addresses, deciding
// which function is too short or never returns.
package differ
