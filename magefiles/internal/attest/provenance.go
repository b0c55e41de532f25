package attest

import (
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// ProvenanceType is the type of the predicate, and BuildType says how to read
// the parameters in it.
const (
	ProvenanceType = "https://slsa.dev/provenance/v1"
	BuildType      = "https://github.com/fother/fother/magefiles/patch/v1"
)

// Made says how a bundle was made, beside what its manifest says.
type Made struct {
	Bundle   Descriptor // the file
	Manifest bundle.Manifest
	// SpecFile is the base name of the spec, "" if there was none.
	SpecFile string
	// SourceTree says that the digest of the first of the manifest's sources is
	// that of a tree, and Commit which one of a git repository it was, if any.
	SourceTree bool
	Commit     string
	// Address is where that source was fetched from, if it was.
	Address string
	// Tools are the programs that compiled and linked.
	Tools []Descriptor
	// Builder is a URI that stands for who ran the build, and Versions what it
	// ran, by name.
	Builder  string
	Versions map[string]string
	// Byproducts are the reports.
	Byproducts []Descriptor
}

// provenance is the predicate (https://slsa.dev/spec/v1.0/provenance#schema).
// It has no times and no id of the run, so that who makes the same from the same
// gets the same.
type provenance struct {
	BuildDefinition struct {
		BuildType            string       `json:"buildType"`
		ExternalParameters   external     `json:"externalParameters"`
		InternalParameters   internal     `json:"internalParameters"`
		ResolvedDependencies []Descriptor `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version,omitempty"`
		} `json:"builder"`
		Byproducts []Descriptor `json:"byproducts,omitempty"`
	} `json:"runDetails"`
}

// external are what whoever started the build chose.
type external struct {
	Spec        string            `json:"spec,omitempty"`
	Package     string            `json:"package"`
	Series      specs.Series      `json:"series"`
	Level       specs.Level       `json:"level"`
	Environment map[string]string `json:"environment,omitempty"`
}

// internal are what the build took from its surroundings.
type internal struct {
	Epoch     int64    `json:"SOURCE_DATE_EPOCH"`
	Path      string   `json:"path,omitempty"`
	Toolchain []string `json:"toolchain,omitempty"`
}

// Provenance returns the provenance of a bundle, a statement about it.
func Provenance(m Made) ([]byte, error) {
	var p provenance
	d, b := &p.BuildDefinition, m.Manifest
	d.BuildType = BuildType
	d.ExternalParameters = external{m.SpecFile, b.Name, b.Series, b.Level, b.Build.Environment}
	d.InternalParameters = internal{b.Created.Unix(), b.Build.Path, b.Toolchain}
	if m.SpecFile != "" {
		d.ResolvedDependencies = append(d.ResolvedDependencies, File(m.SpecFile, b.Spec))
	}
	for i, s := range b.Sources {
		dep := File(s.Name, s.Digest)
		if i == 0 {
			dep.URI = m.Address
		}
		if i == 0 && m.SourceTree {
			dep.Digest = map[string]string{TreeDigest: s.Digest.String()}
			if m.Commit != "" {
				dep.Digest[GitCommit] = m.Commit
			}
		}
		d.ResolvedDependencies = append(d.ResolvedDependencies, dep)
	}
	d.ResolvedDependencies = append(d.ResolvedDependencies, m.Tools...)
	p.RunDetails.Builder.ID, p.RunDetails.Builder.Version = m.Builder, m.Versions
	p.RunDetails.Byproducts = m.Byproducts
	return encode(m.Bundle, ProvenanceType, p)
}
