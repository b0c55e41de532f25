// Package pipeline makes live patches from specs: what the Mage targets and
// fother-make share.
//
// In call order, each step reading what the one before left in the work
// folder:
//
//   - [Build] copies or fetches the source tree, builds it under capture,
//     replaces it by a patched copy at the same path and builds that. Where the
//     debug data of what changed says nothing of types, both are built once
//     more with it.
//   - [Diff] pairs the deliverables of the two builds and their units, and
//     compares the units that differ, and what their debug data says of types,
//     variables and signatures; and it packs them in memory, so that all that
//     stands in the way of a patch is told at once, as a [RefusedError].
//     [Compare] does so and returns the [Report], which a fix that is refused
//     has too.
//   - [Pack] assembles what changed, binds it to each target, writes one
//     .kpatch file for each, named by its build-id, and the bundle of all.
//   - The verification reads the bundle as a host would and holds it against
//     the original build.
//   - [Publish] signs the bundle and puts it into the registry, with provenance,
//     an OpenVEX document and the report beside it, which [FetchRelease] gets.
//   - [Rebuild] makes a published bundle once more, for a second party, in
//     WORK/.rebuild, and adds its signature if it is the same.
//
// [Make] takes all steps up to the verification that are not up to date, and
// [Step] one, if those before it are up to date. Whether one is, its stamp
// tells: a file with the digests of everything that the step depended on and of
// what it left. Steps work beside what was there and replace it at their end,
// so that one that fails leaves it as it was. The .kpatch files and the bundle
// are removed before any step that they depend on is taken, and if they are
// found wrong: what is there is never that of another fix.
//
// The work folder of a spec is WORK/NAME-LEVEL, or WORK/NAME@SERIES-LEVEL: original and patched (the trees
// after the builds), installed-original and installed-patched (what install
// commands left below DESTDIR), source (an archive, unpacked), store (the
// capture), diff (patch assembly, for people), report.json (what the comparison found: a [Report]), patches and NAME-LEVEL.kpatch.tar.zst (the result), a log of each
// build and a stamp of each step. All builds of one name run in
// WORK/build/NAME, so that all levels have one original.
//
// [DiffAt] and [PackAt] are two of the steps for builds that were made
// elsewhere, without stamps. Nothing here touches a process: that is the work
// of package apply.
package pipeline
