package registry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// Release is one bundle to publish.
type Release struct {
	// Package is the name of the spec. Its bundles are signed by the key that
	// targets.json binds it to: a key of its own, from its first release on, or
	// the default one.
	Package string
	Series  specs.Series
	Level   specs.Level
	// BuildIDs are the targets that the bundle has patches for.
	BuildIDs []specs.BuildID
	CVEs     []string
	// File is the bundle's file name, without a folder.
	File string
	// Bundle is its content.
	Bundle []byte
	// Channel is where it is published to, Stable if empty.
	Channel Channel
	// Attachments lie beside the bundle. Hosts do not fetch them.
	Attachments []Attachment
}

// Entry is a release as it concerns one build-id.
type Entry = catalog.Entry

// origin is an Entry's Origin.
type origin struct {
	release *release
	binding *binding // nil if the package has none
}

// originOf returns where an entry comes from; its parts are nil if it did not come
// from a registry.
func originOf(e *Entry) origin {
	o, _ := e.Origin.(origin)
	return o
}

// release is what a listing holds of one bundle.
type release struct {
	Package string       `json:"package"`
	Series  specs.Series `json:"series"`
	Level   specs.Level  `json:"level"`
	CVEs    []string     `json:"cves,omitempty"`
	File    string       `json:"file"`
	Length  int64        `json:"length"`
	Digest  specs.Digest `json:"sha256"`
	// Channel is empty for Stable. Revoked says that a statement by the package's
	// keys lies beside the bundle.
	Channel Channel `json:"channel,omitempty"`
	Revoked bool    `json:"revoked,omitempty"`
	// BuildIDs in an index target are those that belong there, in a package
	// target all.
	BuildIDs []specs.BuildID `json:"build_ids"`
	// Attachments are there in a package target only.
	Attachments []attachment `json:"attachments,omitempty"`
}

// listing is the content of the targets index/… and packages/….
type listing struct {
	Format   int        `json:"format"`
	Releases []*release `json:"releases"`
}

// A listing in which a release is not for all has another format than others:
// who does not know channels and revocations has to stop there.
const (
	listingFormat    = 1
	listingFormatNew = 2
)

// Limits of one release.
const (
	maxReleaseIDs  = 4096
	maxReleaseCVEs = 1024
	maxName        = 64
	maxFile        = 200
)

// parseListing reads a listing and checks every value in it. Fields that it
// does not know are left alone: a listing that older clients would
// misunderstand has another format.
func parseListing(data []byte) (*listing, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var l listing
	if err := dec.Decode(&l); err != nil {
		return nil, fmt.Errorf("not a listing: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not a listing: something follows it")
	}
	if l.Format != listingFormat && l.Format != listingFormatNew {
		return nil, fmt.Errorf("listing of format %d: want %d or %d", l.Format, listingFormat, listingFormatNew)
	}
	for i, r := range l.Releases {
		if r == nil {
			return nil, fmt.Errorf("release %d: empty", i)
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("release %d: %w", i, err)
		}
	}
	return &l, nil
}

// check holds a release to what file names and bounds allow.
func (r *release) check() error {
	if err := checkName("package", r.Package, maxName); err != nil {
		return err
	}
	if err := checkName("file", r.File, maxFile); err != nil {
		return err
	}
	if _, err := specs.ParseSeries(string(r.Series)); err != nil {
		return err
	}
	switch {
	case r.Level == 0:
		return errors.New("level 0: want 1 or more")
	case r.Length <= 0 || r.Length > MaxBundle:
		return fmt.Errorf("bundle of %d bytes: want 1 to %d", r.Length, MaxBundle)
	case len(r.BuildIDs) == 0 || len(r.BuildIDs) > maxReleaseIDs:
		return fmt.Errorf("%d build-ids: want 1 to %d", len(r.BuildIDs), maxReleaseIDs)
	case len(r.CVEs) > maxReleaseCVEs:
		return fmt.Errorf("%d CVEs: want at most %d", len(r.CVEs), maxReleaseCVEs)
	}
	for _, cve := range r.CVEs {
		if err := checkName("CVE", cve, maxName); err != nil {
			return err
		}
	}
	if r.Channel != "" && rank(r.Channel) == 0 {
		return fmt.Errorf("channel %.80q: want %s, %s or %s", r.Channel, Edge, Beta, Stable)
	}
	return errors.Join(checkIDs(r.BuildIDs), checkAttachments(r.Attachments))
}

func checkIDs(ids []specs.BuildID) error {
	for i, id := range ids {
		canonical, err := specs.ParseBuildID(string(id))
		if err != nil {
			return err
		}
		if canonical != id {
			return fmt.Errorf("build-id %q: want lower-case digits", id)
		}
		if i > 0 && id <= ids[i-1] {
			return fmt.Errorf("build-id %s: repeated or out of order", id)
		}
	}
	return nil
}

// checkName refuses what could leave a folder, hide in it or break a line.
func checkName(what, s string, limit int) error {
	ok := s != "" && len(s) <= limit && !strings.ContainsRune("._-+~", rune(s[0]))
	for _, r := range s {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+~", r))
	}
	if !ok {
		return fmt.Errorf("%s %.80q: want 1 to %d letters, digits, '.', '_', '-', '+' or '~', beginning with a letter or digit", what, s, limit)
	}
	return nil
}

// entry returns r as it concerns id; b is the binding of its package.
func (r *release) entry(id specs.BuildID, b *binding) Entry {
	return Entry{
		BuildID: id, Package: r.Package, Series: r.Series, Level: r.Level, CVEs: r.CVEs, File: r.File,
		Channel: orStable(r.Channel), Path: bundleFile(r.Digest, r.File), Length: r.Length, Digest: r.Digest, KeyID: b.keyID(), Origin: origin{r, b},
	}
}

// same reports whether r and o are one release.
func (r *release) same(o *release) bool {
	return r.Package == o.Package && r.Series == o.Series && r.Level == o.Level && r.File == o.File &&
		r.Length == o.Length && r.Digest == o.Digest && slices.Equal(r.CVEs, o.CVEs) && slices.Equal(r.BuildIDs, o.BuildIDs)
}

// compareReleases orders by package, series and digest, the highest level of a
// series first.
func compareReleases(a, b *release) int {
	return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Series, b.Series),
		cmp.Compare(b.Level, a.Level), bytes.Compare(a.Digest[:], b.Digest[:]))
}

func (l *listing) encode() ([]byte, error) {
	if slices.ContainsFunc(l.Releases, func(r *release) bool { return r.Revoked || orStable(r.Channel) != Stable }) {
		l.Format = listingFormatNew
	}
	slices.SortFunc(l.Releases, compareReleases)
	return json.Marshal(l)
}
