package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Suffix ends the names of bundles.
const Suffix = ".kpatch.tar.zst"

// Format is the version of the format that this package writes and reads. It
// rises when a reader has to understand something that it did not have to
// before.
const Format = 1

// Name returns the name of the file that a release's bundle is kept in.
func Name(name string, level specs.Level) string {
	return fmt.Sprintf("%s-%d%s", name, level, Suffix)
}

// Manifest says what a bundle holds. It is the first file in it,
// manifest.json.
type Manifest struct {
	Format int `json:"format"`
	// Name, Series, Level and the rest up to Consistency are those of the spec,
	// and of every patch in the bundle.
	Name        string            `json:"name"`
	Series      specs.Series      `json:"series"`
	Level       specs.Level       `json:"level"`
	Description string            `json:"description,omitempty"`
	CVEs        []string          `json:"cves,omitempty"`
	Consistency specs.Consistency `json:"consistency,omitzero"`
	// Allowed are the changes that the spec allows, with reasons.
	Allowed []specs.Allowance `json:"allowed,omitempty"`
	// Created is the time that the release says it was made, in whole seconds
	// of UTC: SOURCE_DATE_EPOCH, not the clock.
	Created time.Time `json:"created"`
	// Spec is the digest of the spec file, zero if there was none.
	Spec specs.Digest `json:"spec,omitzero"`
	// Sources are what the release was made from: the archive or tree, then
	// the source patches in order.
	Sources []Source `json:"sources,omitempty"`
	// Toolchain holds what compilers, assemblers and linkers say of themselves,
	// sorted.
	Toolchain []string `json:"toolchain,omitempty"`
	// Build is what else has to be the same where the release is built again.
	Build Build `json:"build,omitzero"`
	// Targets are the patches, sorted by build-id; the files follow in this
	// order.
	Targets []Target `json:"targets"`
}

// Source is a file or tree that the release was made from.
type Source struct {
	Name   string       `json:"name"`
	Digest specs.Digest `json:"digest"`
}

// Build says how the two builds ran that a release was made from.
type Build struct {
	// Path is the absolute path of the folder that they ran in, if it is in
	// what they made, as that of the compilation is in debug data. Else it is
	// empty: builds elsewhere make the same.
	Path string `json:"path,omitempty"`
	// Environment holds the variables by which compilers and the like are
	// chosen or told what to do, as far as they were set. Those of the spec are
	// not here.
	Environment map[string]string `json:"environment,omitempty"`
}

// Target describes one patch of the bundle.
type Target struct {
	File    string        `json:"file"` // BUILDID.kpatch
	Name    string        `json:"name"` // of the target, a base name
	BuildID specs.BuildID `json:"build_id"`
	Arch    string        `json:"arch"` // arch.Arch.Name
	// Size and Digest are those of the file; Size is in bytes.
	Size      int64        `json:"size"`
	Digest    specs.Digest `json:"digest"`
	Functions []Function   `json:"functions"`
}

// Function is a function that a patch replaces; see [kpack.Function].
type Function struct {
	Name     string `json:"name"`
	File     string `json:"file,omitempty"`
	Reason   string `json:"reason,omitempty"`
	NextCall bool   `json:"next_call,omitempty"`
}

// Bounds of a bundle.
const (
	maxTargets  = 4096
	maxText     = 64 << 10  // bytes of one text
	maxManifest = 16 << 20  // bytes
	maxContent  = 256 << 20 // bytes of the archive, uncompressed
)

// manifestFile is the name of the manifest in the archive.
const manifestFile = "manifest.json"

// targetOf describes patch p, whose file has the given size and digest.
func targetOf(p *kpack.Patch, size int64, digest specs.Digest) Target {
	t := Target{
		File: string(p.Target.BuildID) + ".kpatch", Name: p.Target.Name, BuildID: p.Target.BuildID, Arch: p.Arch.Name,
		Size: size, Digest: digest,
	}
	for _, f := range p.Functions {
		t.Functions = append(t.Functions, Function{Name: f.Name, File: f.File, Reason: f.Reason, NextCall: f.NextCall})
	}
	return t
}

// equal reports whether t says the same as o.
func (t *Target) equal(o *Target) bool {
	return t.File == o.File && t.Name == o.Name && t.BuildID == o.BuildID && t.Arch == o.Arch &&
		t.Size == o.Size && t.Digest == o.Digest && slices.Equal(t.Functions, o.Functions)
}

// check refuses what no release is, what would be an odd file name, and what
// people cannot read on a terminal.
func (m *Manifest) check() error {
	if _, err := specs.ParseSeries(m.Name); err != nil { // names follow the same rule
		return fmt.Errorf("name %q: want 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", m.Name)
	}
	if _, err := specs.ParseSeries(string(m.Series)); err != nil {
		return err
	}
	if m.Level == 0 {
		return errors.New("level 0: want 1 or more")
	}
	// tar keeps the time in eleven octal digits.
	if s := m.Created.Unix(); s < 0 || s >= 1<<33 || m.Created.Nanosecond() != 0 || m.Created.Location() != time.UTC {
		return fmt.Errorf("created at %s: want a time since 1970 in whole seconds of UTC", m.Created.Format(time.RFC3339Nano))
	}
	if (m.Consistency.Reason == "") != (len(m.Consistency.NextCall) == 0) {
		return errors.New("consistency: want functions and a reason, or neither")
	}
	if !slices.IsSorted(m.Toolchain) {
		return errors.New("toolchain: want it sorted")
	}
	if p := m.Build.Path; p != "" && (!path.IsAbs(p) || path.Clean(p) != p) {
		return fmt.Errorf("build path %.200q: want an absolute one", p)
	}
	for _, a := range m.Allowed {
		if a.Change == "" || a.Reason == "" {
			return errors.New("allowed: want changes, each with a reason")
		}
	}
	return m.checkTexts()
}

func (m *Manifest) checkTexts() error {
	texts := slices.Concat(m.CVEs, m.Toolchain, m.Consistency.NextCall)
	for _, s := range m.Sources {
		texts = append(texts, s.Name)
	}
	texts = append(texts, m.Build.Path)
	for name, value := range m.Build.Environment {
		texts = append(append(texts, name), strings.Split(value, "\n")...)
	}
	texts = append(texts, strings.Split(m.Description, "\n")...)
	texts = append(texts, strings.Split(m.Consistency.Reason, "\n")...)
	for _, a := range m.Allowed {
		texts = append(append(texts, a.Change), strings.Split(a.Reason, "\n")...)
	}
	for _, t := range texts {
		if len(t) > maxText || strings.ContainsFunc(t, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
			return fmt.Errorf("text %.40q has control characters or is longer than %d bytes", t, maxText)
		}
	}
	return nil
}

// agrees reports where a patch's own description differs from the release's.
func (m *Manifest) agrees(p *kpack.Patch) error {
	is := p.Meta
	differs := func(what string, is, want any) error {
		return fmt.Errorf("patch for %s (%s): %s %q: the bundle's is %q", p.Target.Name, p.Target.BuildID, what, is, want)
	}
	switch {
	case is.Name != m.Name:
		return differs("name", is.Name, m.Name)
	case is.Series != m.Series:
		return differs("series", is.Series, m.Series)
	case is.Level != m.Level:
		return differs("level", fmt.Sprint(is.Level), fmt.Sprint(m.Level))
	case is.Description != m.Description:
		return differs("description", is.Description, m.Description)
	case !slices.Equal(is.CVEs, m.CVEs):
		return differs("CVEs", is.CVEs, m.CVEs)
	case is.Consistency.Reason != m.Consistency.Reason || !slices.Equal(is.Consistency.NextCall, m.Consistency.NextCall):
		return differs("consistency", is.Consistency.NextCall, m.Consistency.NextCall)
	}
	return nil
}

// checkTargets refuses two patches of one build-id, and another order than
// that of build-ids.
func (m *Manifest) checkTargets() error {
	if len(m.Targets) == 0 || len(m.Targets) > maxTargets {
		return fmt.Errorf("%d patches: want 1 to %d", len(m.Targets), maxTargets)
	}
	for i := 1; i < len(m.Targets); i++ {
		switch a, b := m.Targets[i-1], m.Targets[i]; cmp.Compare(a.BuildID, b.BuildID) {
		case 0:
			return fmt.Errorf("two patches for build-id %s (%s and %s)", a.BuildID, a.Name, b.Name)
		case 1:
			return fmt.Errorf("patches are not sorted by build-id: %s stands before %s", a.BuildID, b.BuildID)
		}
	}
	return nil
}
