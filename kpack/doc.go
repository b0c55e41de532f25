// Package kpack is the patch format: an ELF relocatable object in which every
// reference to the target is already bound.
//
// In call order:
//
//   - [Build] merges the assembled units of a patch, finds the place of every
//     symbol of the original build in the linked target, and binds each
//     reference to *this target at this address* or to *this import*. What
//     cannot work is refused, with every reason at once.
//   - [Patch.Encode] and [Decode] turn the [Patch] into a .kpatch file and
//     back. readelf and objdump open the file; Decode believes nothing in it.
//   - [Patch.Layout] says how much memory of which kind the patch needs, and
//     [Patch.Link] relocates it for one place in one process.
//   - [Redirect] makes the jump that leads from an old entry to the new body, and
//     [GateCode] what several entries lead to while they are switched together.
//
// Everything is a pure function of its arguments; no process is touched and
// nothing depends on the host. FORMAT.md describes the file; package bundle
// carries the files of one release.
package kpack
