package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fother/fother/specs"
)

// signature is one signature that lies beside a file. It was not checked: for
// that the key has to come from a registry that is trusted.
type signature struct {
	File  string `json:"file"`
	KeyID string `json:"key_id"`
}

// maxSignature bounds a signature file, maxSignatures the signatures in it.
const (
	maxSignature  = 1 << 20 // bytes
	maxSignatures = 64
)

// signaturesBeside returns the signatures in the file that belongs to path: a
// DSSE envelope, https://github.com/secure-systems-lab/dsse.
func signaturesBeside(path string) ([]signature, error) {
	path += ".sig"
	data, err := readAny(path, maxSignature)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSignatures(path, data)
}

func parseSignatures(path string, data []byte) ([]signature, error) {
	var envelope struct {
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		return nil, fmt.Errorf("%s: not a signature: %w", path, err)
	}
	if envelope.PayloadType == "" || len(envelope.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%s: not a signature: no payload type, or %d signatures", path, len(envelope.Signatures))
	}
	var all []signature
	for _, s := range envelope.Signatures {
		all = append(all, signature{path, s.KeyID})
	}
	return all, nil
}

// lines returns the lines of a text, none of an empty one.
func lines(text string) []string {
	if text = strings.TrimRight(text, "\n"); text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// orNone stands for a text that is not there.
func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// printFile tells a person what a file holds.
func (c *show) printFile(s *shown) {
	fmt.Fprintf(c.stdout, "%s\n", clean(s.File))
	row := func(name, format string, args ...any) {
		fmt.Fprintf(c.stdout, "  %-12s %s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	if s.Kind == "" {
		return // an error told why
	}
	row(s.Kind, "%d bytes, sha256 %v", s.Size, s.Digest)
	m := s.Manifest
	row("release", "%s, series %s, level %d", orNone(m.Name), m.Series, m.Level)
	for i, line := range lines(m.Description) {
		row([]string{"description", ""}[min(i, 1)], "%s", line)
	}
	for i, cve := range m.CVEs {
		row([]string{"fixes", ""}[min(i, 1)], "%s", cve)
	}
	for _, f := range m.Consistency.NextCall {
		row("next call", "%s: calls that are under way may end in the old code: %s", f, m.Consistency.Reason)
	}
	for _, a := range m.Allowed {
		row("allowed", "%s: %s", a.Change, strings.Join(lines(a.Reason), " "))
	}
	if s.Kind == "bundle" {
		row("created", "%s", m.Created.Format(time.RFC3339))
	}
	if m.Spec != (specs.Digest{}) {
		row("spec", "sha256 %v", m.Spec)
	}
	for _, src := range m.Sources {
		row("source", "%s, sha256 %v", src.Name, src.Digest)
	}
	for _, t := range m.Toolchain {
		row("toolchain", "%s", t)
	}
	for _, p := range s.Patches {
		c.printPatch(p, row)
	}
	c.printTrust(s, row)
}

func (c *show) printPatch(p contents, row func(string, string, ...any)) {
	row("target", "%s (%s), build-id %s", orNone(p.Target), p.Arch, p.BuildID)
	row("  size", "%d bytes: code %d, constants %d, data %d, zeroed data %d", p.Size, p.Memory.Code, p.Memory.ROData, p.Memory.Data, p.Memory.BSS)
	for _, u := range p.Unchecked {
		row("  unchecked", "%s", u)
	}
	for _, f := range p.Functions {
		when := ""
		if f.NextCall {
			when = ", from the next call on"
		}
		row("  function", "%s (%s), %d bytes instead of %d%s: %s", f.Name, orNone(f.File), f.Patched, f.Original, when, orNone(f.Reason))
	}
	for _, h := range p.Hooks {
		row("  hook", "%v: %s, at most %v", h.Point, h.Function, h.Limit)
	}
	for _, v := range p.Variables {
		begins := ""
		if v.Fresh {
			begins = ", begins anew with this level"
		}
		row("  variable", "%s (%s), %d bytes%s", strings.TrimSpace(v.Type+" "+v.Name), orNone(v.Unit), v.Size, begins)
	}
	for _, i := range p.Imports {
		row("  import", "%s", i)
	}
	if p.Producer != "" && c.verbose {
		row("  compiler", "%s", p.Producer)
	}
}

func (c *show) printTrust(s *shown, row func(string, string, ...any)) {
	for _, g := range s.Signatures {
		row("signature", "key %s, in %s, not checked", orNone(g.KeyID), filepath.Base(g.File))
	}
	switch {
	case c.client == nil || s.Error != "":
	case len(s.Listed) == 0:
		row("registry", "%s does not list this file", c.client.Address())
	default:
		e := s.Listed[0]
		row("registry", "%s lists it for package %s, signed by key %s, in channel %s", c.client.Address(), e.Package, e.KeyID, e.Channel)
		if e.Revoked != nil {
			row("revoked", "%s: %s", e.Revoked.Time.Format(time.DateOnly), e.Revoked.Reason)
		}
	}
}
