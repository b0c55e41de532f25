package attest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/fother/fother/kpack/bundle"
)

// VEXType is the type of the predicate, and of the document in it.
const VEXType = "https://openvex.dev/ns/v0.2.0"

// vexTooling says what wrote a document.
const vexTooling = "https://github.com/fother/fother"

// document is an OpenVEX document.
type document struct {
	Context    string         `json:"@context"`
	ID         string         `json:"@id"`
	Author     string         `json:"author"`
	Timestamp  string         `json:"timestamp"`
	Version    int            `json:"version"`
	Tooling    string         `json:"tooling"`
	Statements []vexStatement `json:"statements"`
}

type vexStatement struct {
	Vulnerability struct {
		Name string `json:"name"`
	} `json:"vulnerability"`
	Products []product `json:"products"`
	Status   string    `json:"status"`
	// StatusNotes has the reasons: a justification is for what was never
	// affected, and not allowed beside "fixed".
	StatusNotes string `json:"status_notes"`
}

type product struct {
	ID          string            `json:"@id"`
	Identifiers map[string]string `json:"identifiers"`
}

// VEX returns a statement about a bundle, of which the predicate is an OpenVEX
// document: a program or library of a build-id that the bundle has a patch for is
// no longer affected by the release's CVEs. It is nil if the
// release names none. Author is a URI that stands for who says so.
func VEX(file Descriptor, m bundle.Manifest, author string) ([]byte, error) {
	if len(m.CVEs) == 0 {
		return nil, nil
	}
	doc := document{
		Context: VEXType, ID: vexTooling + "/vex/" + file.Digest[SHA256], Author: author,
		Timestamp: m.Created.UTC().Format(time.RFC3339), Version: 1, Tooling: vexTooling,
	}
	for _, cve := range m.CVEs {
		s := vexStatement{Status: "fixed", StatusNotes: notes(m)}
		s.Vulnerability.Name = cve
		for _, t := range m.Targets {
			purl := productURL(t)
			s.Products = append(s.Products, product{purl, map[string]string{"purl": purl}})
		}
		doc.Statements = append(doc.Statements, s)
	}
	return encode(file, VEXType, doc)
}

// notes says in what way the vulnerabilities were fixed.
func notes(m bundle.Manifest) string {
	text := fmt.Sprintf("Fixed in running processes by the live patch %s, series %s, level %d", m.Name, m.Series, m.Level)
	if m.Description != "" {
		text += ": " + strings.TrimRight(m.Description, ".")
	}
	return text + ". A process is fixed while the patch is applied to it."
}

// productURL is the package URL of a linked file, which only its build-id
// tells from others of that name
// (https://github.com/package-url/purl-spec, type generic).
func productURL(t bundle.Target) string {
	return fmt.Sprintf("pkg:generic/%s?arch=%s&build_id=%s", escape(t.Name), escape(t.Arch), t.BuildID)
}

// escape percent-encodes a part of a package URL.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// Predicate returns the predicate of a statement: the document that scanners
// read, in the case of VEX.
func Predicate(statement []byte) ([]byte, error) {
	var s struct {
		Predicate json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(statement, &s); err != nil {
		return nil, err
	}
	var doc bytes.Buffer
	if err := json.Indent(&doc, s.Predicate, "", "  "); err != nil {
		return nil, err
	}
	doc.WriteByte('\n')
	return doc.Bytes(), nil
}
