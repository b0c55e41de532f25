// Package shim is the program fother-cc: the compiler wrapper and, under the
// names of assemblers and linkers, the shims that gcc runs in their place.
//
//	Main → cc         name of a compiler: set the environment, exec it
//	     → assemble   as: store the text, run the real as, store the object
//	     → link       ld, ld.bfd, …: run the real linker, note what went in
//	     → guard      run a command of the build, end all of it when its starter is gone
//
// A shim changes nothing of a build but its time: arguments, exit code,
// signals and what the tool prints pass through. There is one exception: when
// the store cannot be written the build fails, because a gap in the capture
// would be half a patch.
package shim
