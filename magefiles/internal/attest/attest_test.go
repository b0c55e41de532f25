package attest

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	provenancev1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

func manifest() bundle.Manifest {
	return bundle.Manifest{
		Name: "fix", Series: "default", Level: 3, Description: "An overflow.", CVEs: []string{"CVE-2026-1", "CVE-2026-2"},
		Created: time.Date(2026, 11, 22, 4, 5, 6, 0, time.UTC), Spec: specs.DigestOf([]byte("spec")),
		Sources:   []bundle.Source{{Name: "source tree", Digest: specs.DigestOf([]byte("source"))}, {Name: "fix.patch", Digest: specs.DigestOf([]byte("fix"))}},
		Toolchain: []string{"GCC: (Debian 12.2.0-14) 12.2.0"},
		Build:     bundle.Build{Path: "/build/fix/tree", Environment: map[string]string{"CFLAGS": "-O2"}},
		Targets: []bundle.Target{
			{Name: "lib c++.so.1", BuildID: "aa01", Arch: "x86_64", Digest: specs.DigestOf([]byte("a"))},
			{Name: "memcached", BuildID: "bb02", Arch: "aarch64", Digest: specs.DigestOf([]byte("b"))},
		},
	}
}

func made() Made {
	return Made{
		Bundle: File("fix-3.kpatch.tar.zst", specs.DigestOf([]byte("bundle"))), Manifest: manifest(), SpecFile: "spec.yaml",
		SourceTree: true, Commit: strings.Repeat("0a", 20), Tools: []Descriptor{File("gcc", specs.DigestOf([]byte("gcc")))},
		Builder: "https://example.com/ci", Versions: map[string]string{"go": "go1.26"},
		Byproducts: []Descriptor{File("report.json", specs.DigestOf([]byte("{}")))},
	}
}

// TestProvenance holds a statement to the definitions of its form that in-toto
// publishes, and to what SLSA asks for at its first build level.
func TestProvenance(t *testing.T) {
	data, err := Provenance(made())
	if err != nil {
		t.Fatal(err)
	}
	s := checkStatement(t, data, ProvenanceType)
	predicate, err := protojson.Marshal(s.GetPredicate())
	if err != nil {
		t.Fatal(err)
	}
	var p provenancev1.Provenance
	if err := protojson.Unmarshal(predicate, &p); err != nil { // it takes no unknown field
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	d := p.GetBuildDefinition()
	want := map[string]string{
		"spec.yaml/sha256": specs.DigestOf([]byte("spec")).String(), "source tree/fotherTree": specs.DigestOf([]byte("source")).String(),
		"source tree/gitCommit": strings.Repeat("0a", 20), "fix.patch/sha256": specs.DigestOf([]byte("fix")).String(),
		"gcc/sha256": specs.DigestOf([]byte("gcc")).String(),
	}
	for _, r := range d.GetResolvedDependencies() {
		for kind, digest := range r.GetDigest() {
			if want[r.GetName()+"/"+kind] != digest {
				t.Errorf("%s: %s %s", r.GetName(), kind, digest)
			}
			delete(want, r.GetName()+"/"+kind)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	internal := d.GetInternalParameters().AsMap()
	if internal["path"] != "/build/fix/tree" || internal["SOURCE_DATE_EPOCH"] != 1795320306.0 || d.GetExternalParameters().AsMap()["level"] != 3.0 {
		t.Errorf("parameters %v, %v", internal, d.GetExternalParameters())
	}
	if again, err := Provenance(made()); err != nil || !bytes.Equal(again, data) {
		t.Errorf("another time it is another: %v", err)
	}
}

func checkStatement(t *testing.T, data []byte, predicateType string) *intoto.Statement {
	t.Helper()
	var s intoto.Statement
	if err := protojson.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	subject := s.GetSubject()
	if s.GetPredicateType() != predicateType || len(subject) != 1 || subject[0].GetDigest()["sha256"] != specs.DigestOf([]byte("bundle")).String() {
		t.Errorf("statement about %v of type %s", subject, s.GetPredicateType())
	}
	return &s
}

// openVEX is what the specification of OpenVEX 0.2.0 says of documents and of
// statements with status "fixed", as a JSON schema: what has to be there, what
// may be, and that reasons for "not_affected" are not.
const openVEX = `{
	"type": "object",
	"required": ["@context", "@id", "author", "timestamp", "version", "statements"],
	"additionalProperties": false,
	"properties": {
		"@context": {"const": "https://openvex.dev/ns/v0.2.0"},
		"@id": {"type": "string", "format": "uri"},
		"author": {"type": "string", "minLength": 1},
		"role": {"type": "string"},
		"timestamp": {"type": "string", "format": "date-time"},
		"last_updated": {"type": "string", "format": "date-time"},
		"version": {"type": "integer", "minimum": 1},
		"tooling": {"type": "string"},
		"statements": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {
			"type": "object",
			"required": ["vulnerability", "products", "status"],
			"additionalProperties": false,
			"properties": {
				"vulnerability": {"type": "object", "required": ["name"], "additionalProperties": false,
					"properties": {"@id": {"type": "string", "format": "uri"}, "name": {"type": "string", "minLength": 1}, "description": {"type": "string"},
						"aliases": {"type": "array", "items": {"type": "string"}}}},
				"products": {"type": "array", "minItems": 1, "uniqueItems": true, "items": {
					"type": "object", "required": ["@id"], "additionalProperties": false,
					"properties": {"@id": {"type": "string", "format": "uri"}, "identifiers": {"type": "object", "additionalProperties": false,
						"properties": {"purl": {"type": "string", "pattern": "^pkg:[a-z]+/"}, "cpe22": {"type": "string"}, "cpe23": {"type": "string"}}}}}},
				"status": {"const": "fixed"},
				"status_notes": {"type": "string"},
				"timestamp": {"type": "string", "format": "date-time"}
			}
		}}
	}
}`

// TestVEX: the document is of the form that scanners read.
func TestVEX(t *testing.T) {
	m := made()
	data, err := VEX(m.Bundle, m.Manifest, m.Builder)
	if err != nil {
		t.Fatal(err)
	}
	checkStatement(t, data, VEXType)
	text, err := Predicate(data)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.UnmarshalJSON(strings.NewReader(openVEX))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("openvex.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("openvex.json")
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(instance); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var cves, products []string
	for _, s := range doc.Statements {
		cves = append(cves, s.Vulnerability.Name)
		for _, p := range s.Products {
			products = append(products, p.ID)
		}
	}
	if !slices.Equal(cves, m.Manifest.CVEs) || doc.Timestamp != "2026-11-22T04:05:06Z" || !strings.Contains(doc.Statements[0].StatusNotes, "An overflow.") {
		t.Errorf("document\n%s", text)
	}
	for i, want := range []string{"pkg:generic/lib%20c%2B%2B.so.1?arch=x86_64&build_id=aa01", "pkg:generic/memcached?arch=aarch64&build_id=bb02"} {
		if products[i] != want || !purlPattern.MatchString(products[i]) {
			t.Errorf("product %s, want %s", products[i], want)
		}
		if _, err := url.Parse(products[i]); err != nil {
			t.Error(err)
		}
	}
	m.Manifest.CVEs = nil
	if data, err := VEX(m.Bundle, m.Manifest, m.Builder); data != nil || err != nil {
		t.Errorf("without CVEs: %s, %v", data, err)
	}
}

// purlPattern is what a package URL of type generic looks like: qualifiers are
// sorted, their keys are letters, digits, '.', '-' and '_'.
var purlPattern = regexp.MustCompile(`^pkg:generic/[^/?#@]+\?arch=[^&]+&build_id=[0-9a-f]+$`)
