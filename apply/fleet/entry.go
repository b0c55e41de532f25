package fleet

import "github.com/fother/fother/specs"

// Entry stands for registry.Entry.
type Entry struct {
	BuildID specs.BuildID
	Package string
	Series  specs.Series
	Level   specs.Level
	CVEs    []string
	File    string
	Path    string
	Length  int64
	Digest  specs.Digest
	KeyID   string
}
