// Package apply puts patches into running processes and takes them out.
//
// In call order: [Open] reads what is there (mappings, objects with BuildIDs,
// patches that were applied); a plan, a pure function of that snapshot, says
// what fits and what would be written; staging maps memory near the object
// through one briefly held thread and fills it while the process runs; the
// commit stops all threads, proves that none is inside what changes, switches
// the function entries and lets go. Hooks of the patch run in the process before
// and after, in a thread of their own. [Apply] does all of it, [Revert] the way
// back, [Prepare] ends after the plan. [AtEntry] has a program that is being
// started wait until it is patched. [Accept] and [Expire] end trials.
//
// What was applied is recorded in the process itself, in the first bytes of
// each patch's memory, where any later run finds it. PROTOCOL.md has the
// states of a record and the order of writes.
//
// The package does not build or diff, fetches nothing, and prints nothing. It
// knows the target's architecture as a value; only apply/internal/ptrace is
// native.
package apply
