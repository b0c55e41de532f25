// Package lpmake makes live patches in the tree of the user, where configure
// and make have been run: what LibCare's libcare-patch-make does.
//
// [Make] does it all, in call order:
//
//   - what an interrupted run left behind is put right: sources, folders;
//   - the tree is built and installed as it is, under capture;
//   - the files that the fix touches are kept aside, the fix is applied, the
//     tree is built and installed once more, and the files come back;
//   - the check that nothing was left out: make builds what it takes for out of
//     date, and that may be too little;
//   - the builds are compared and the patches packed by package pipeline.
//
// [Update] does the last step again.
//
// Both installations go to the same path, since paths get into programs, and
// are then moved apart.
package lpmake
