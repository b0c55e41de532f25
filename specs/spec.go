package specs

// Spec says what one release of a live patch is made from: a source tree, the
// fix, and how the tree is built. It is data; package specfile reads it from
// YAML and checks it.
type Spec struct {
	// Name of the release, also the name of its work folder and bundle.
	Name string
	// Dir is the source tree, an absolute path.
	Dir string
	// Patches are the source patches that make up the fix, in order, as
	// absolute paths. Paths inside them are relative to Dir after one leading
	// component is removed (patch -p1).
	Patches []string
	// Configure, if any, are shell commands that prepare a fresh tree. They
	// run once for each stage, with capture off.
	Configure []string
	// Build are the shell commands that build the tree, run in the tree.
	Build []string
	// Env is added to the environment of all commands, as KEY=VALUE.
	Env []string
	// Targets are the deliverables to patch, relative to the tree; if empty,
	// all that changed.
	Targets []string

	Series      Series
	Level       Level
	CVEs        []string
	Description string
}
