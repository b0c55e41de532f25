// Package pipeline makes live patches from specs: what the Mage targets and
// fother-make share.
//
// In call order, each step reading what the one before left in the work
// folder:
//
//   - [Build] copies the source tree, builds it under capture, replaces it by a
//     patched copy at the same path and builds that.
//   - [Diff] pairs the deliverables of the two builds and their units, and
//     compares the units that differ.
//   - [Pack] assembles what changed, binds it to each target and writes one
//     .kpatch file for each target, named by its build-id.
//
// The work folder of a spec is WORK/NAME-LEVEL: tree (the source as it was
// built last), store (the capture), diff (patch assembly, for people), patches
// (the result), and a log of each build.
//
// Nothing here touches a process: that is the work of package apply.
package pipeline
