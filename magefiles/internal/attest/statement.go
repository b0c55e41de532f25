package attest

import (
	"bytes"
	"encoding/json"

	"github.com/fother/fother/specs"
)

// Statement is an in-toto statement about one file
// (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md).
type Statement struct {
	Type          string       `json:"_type"`
	Subject       []Descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     any          `json:"predicate"`
}

// Descriptor names something by what is in it
// (https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md).
type Descriptor struct {
	Name        string            `json:"name,omitempty"`
	URI         string            `json:"uri,omitempty"`
	Digest      map[string]string `json:"digest,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Algorithms of digests, beside those that in-toto knows. TreeDigest is that of
// a folder: kpack/bundle/FORMAT.md has it.
const (
	SHA256     = "sha256"
	GitCommit  = "gitCommit"
	TreeDigest = "fotherTree"
)

// File describes a file.
func File(name string, digest specs.Digest) Descriptor {
	return Descriptor{Name: name, Digest: map[string]string{SHA256: digest.String()}}
}

const statementType = "https://in-toto.io/Statement/v1"

// encode returns a statement about a file, on one line for each value, so that
// people can read it.
func encode(subject Descriptor, predicateType string, predicate any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(Statement{statementType, []Descriptor{subject}, predicateType, predicate})
	return text.Bytes(), err
}
