// Package fleet brings a host's processes up to what a registry has for them.
//
// [Pull] is one pass, in call order: a lock in the state folder keeps two
// passes apart; a scan reads the BuildIDs that run; the registry's metadata is
// brought up to date and asked for them; of each target and series the highest
// level is chosen; a bundle that some process lacks is fetched, decoded and
// held against the entry that named it; and its patches are applied, bundle by
// bundle and process by process; what was revoked is replaced by it, or taken out. One that fails does not hinder the others:
// the [Report] has what was done, what was there already, and every error.
//
// What processes say about themselves is input: the objects of one process,
// the BuildIDs of all, and the time that one and that all of a user may take are
// bounded ([Limiter]); root's go first. What the registry says was verified by
// the client that stands behind [Registry].
//
// The package knows no keys and no network, builds nothing, and prints
// nothing. Of its own it keeps the lock and a list of what was revoked, for
// [ReadRevoked]: what is applied is read from the processes.
package fleet
