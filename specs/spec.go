package specs

// Spec says what one release of a live patch is made from: a source tree, the
// fix, and how the tree is built. It is data; package specfile reads it from
// YAML and checks it.
type Spec struct {
	// Name of the release, also the name of its work folder and bundle.
	Name string
	// Dir is the source tree, an absolute path; empty if Archive is set.
	Dir string
	// Archive is where the tree comes from if it is no folder: the absolute
	// path of an archive, or an address that go-getter understands.
	Archive string
	// Checksum of the archive as ALGORITHM:HEX, such as sha256:…. It is never
	// empty for an address of another machine.
	Checksum string
	// Patches are the source patches that make up the fix, in order, as
	// absolute paths. Paths inside them are relative to Dir after one leading
	// component is removed (patch -p1).
	Patches []string
	// Configure, if any, are shell commands that prepare a fresh tree. They
	// run once for each stage, with capture off.
	Configure []string
	// Build are the shell commands that build the tree, run in the tree.
	Build []string
	// Install are the shell commands that install what was built below the
	// folder $DESTDIR. They belong to the build and run under capture.
	Install []string
	// Env is added to the environment of all commands, as KEY=VALUE.
	Env []string
	// Targets are the deliverables to patch, relative to the tree; if empty,
	// all that changed.
	Targets []string

	Series      Series
	Level       Level
	CVEs        []string
	Description string
	Consistency Consistency
	// Allow are changes of what a running program has in memory, or of what
	// others call, that are refused unless they are named here.
	Allow []Allowance
}

// Allowance says of one change that it may go into the patch.
type Allowance struct {
	// Change is what the refusal names, such as "struct conn" or "variable
	// limit", or NoDebugData. Of a variable it stands for its type and for its
	// initial value, which a running program goes without. "fresh variable" and the
	// name of one that the patch brings says that it begins anew, where a lower
	// level of the patch is applied that has it too. Of a function it stands for its
	// signature, and that the old one may stay in use.
	Change string `json:"change"`
	Reason string `json:"reason"` // why that is right; never empty
}

// NoDebugData is what allows a patch of units without debug data, of which
// types, variables and signatures cannot be compared.
const NoDebugData = "no debug data"

// Consistency says when the new code of a patch may begin to run. The zero
// value is strict: not while a thread is inside a function that changes, so
// that no call sees old and new code.
type Consistency struct {
	// NextCall are functions of which calls that are under way may end in the
	// old code, such as a worker's main loop, which never leaves the stack.
	NextCall []string `json:"next_call,omitempty"`
	// Reason says why that is right. It is empty if and only if NextCall is.
	Reason string `json:"reason,omitempty"`
}
