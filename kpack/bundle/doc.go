// Package bundle is the file that carries the patches of one release: a
// manifest and the .kpatch files of all its targets, in a tar archive that is
// compressed with Zstandard. tar --zstd -tf lists it.
//
// In call order:
//
//   - [Encode] completes a [Manifest] from the patches and writes the bundle.
//     The same release gives the same bytes, whatever the folder, the user or
//     the clock.
//   - [Name] is the name that its file has.
//   - [Is] tells a bundle from a single patch, and [Decode] reads it. Nothing
//     in it is believed: a manifest that does not say exactly what its patches
//     say is an error, and so is anything beside them.
//
// Signatures lie beside a bundle, not in it: who trusts it checks them first.
// FORMAT.md describes the file.
package bundle
