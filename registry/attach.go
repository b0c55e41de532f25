package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/fother/fother/specs"
)

// Attachment is a file that lies beside a bundle for people and scanners, such
// as a report. Hosts do not fetch it.
type Attachment struct {
	// Name is its file name, without a folder.
	Name string
	Data []byte
	// Statement says that Data is an in-toto statement about the bundle. It is
	// kept in an envelope that the package's key signs.
	Statement bool
}

// attachment is what a listing of packages says of an attachment.
type attachment struct {
	Name   string       `json:"name"`
	Type   string       `json:"type"`
	Length int64        `json:"length"`
	Digest specs.Digest `json:"sha256"`
}

// The types of attachments: bytes, and DSSE envelopes
// (https://github.com/secure-systems-lab/dsse/blob/master/envelope.md).
const (
	typePlain     = "application/octet-stream"
	typeStatement = "application/vnd.dsse.envelope.v1+json"
)

// maxAttachments bounds the attachments of a release.
const maxAttachments = 16

func checkAttachments(list []attachment) error {
	if len(list) > maxAttachments {
		return fmt.Errorf("%d attachments: want at most %d", len(list), maxAttachments)
	}
	for i, a := range list {
		if err := checkName("attachment", a.Name, maxFile); err != nil {
			return err
		}
		switch {
		case a.Type != typePlain && a.Type != typeStatement:
			return fmt.Errorf("attachment %s of type %.80q: want %s or %s", a.Name, a.Type, typePlain, typeStatement)
		case a.Length <= 0 || a.Length > MaxAttachment:
			return fmt.Errorf("attachment %s of %d bytes: want 1 to %d", a.Name, a.Length, MaxAttachment)
		case i > 0 && a.Name <= list[i-1].Name:
			return fmt.Errorf("attachment %s: repeated or out of order", a.Name)
		}
	}
	return nil
}

// attachmentFile returns where an attachment of a bundle is. It has its digest
// in its name, so that no file is ever replaced.
func attachmentFile(bundle specs.Digest, a *attachment) string {
	return path.Join(bundlesDir, bundle.String(), a.Digest.String()+"."+a.Name)
}

// attach writes the attachments of a release and notes those that it does not
// have yet. What is listed under a name stays. It reports whether something was
// noted.
func (e *edit) attach(ctx context.Context, r *release, list []Attachment, by []signer) (bool, error) {
	all := slices.Clone(r.Attachments)
	for _, given := range list {
		data, kind := given.Data, typePlain
		if given.Statement {
			if err := checkStatement(data, r); err != nil {
				return false, fail(ErrInvalid, r.File, "attachment %.80q: %w", given.Name, err)
			}
			var err error
			if data, err = signStatement(ctx, data, by); err != nil {
				return false, err
			}
			kind = typeStatement
		}
		a := attachment{given.Name, kind, int64(len(data)), specs.DigestOf(data)}
		i := slices.IndexFunc(all, func(o attachment) bool { return o.Name == a.Name })
		if i >= 0 && all[i] != a {
			continue
		}
		if i < 0 {
			all = append(all, a)
			slices.SortFunc(all, func(x, y attachment) int { return cmp.Compare(x.Name, y.Name) })
		}
		if err := checkAttachments(all); err != nil {
			return false, &Error{ErrInvalid, r.File, err}
		}
		if err := e.store.write(ctx, attachmentFile(r.Digest, &a), data); err != nil {
			return false, err
		}
	}
	added := len(all) > len(r.Attachments)
	r.Attachments = all
	return added, nil
}

// checkStatement refuses what is no in-toto statement about the bundle of r.
func checkStatement(data []byte, r *release) error {
	var s struct {
		Type    string `json:"_type"`
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("statement: %w", err)
	}
	switch {
	case s.Type != statementType || s.PredicateType == "" || s.PredicateType == predicateType || s.PredicateType == revocationType:
		return fmt.Errorf("statement of type %.80q about %.80q", s.Type, s.PredicateType)
	case len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != r.Digest.String():
		return errors.New("the statement is about another file")
	}
	return nil
}

// Published is a release as those see it who publish, or hold what others
// publish against its source.
type Published struct {
	Package  string
	Series   specs.Series
	Level    specs.Level
	CVEs     []string
	BuildIDs []specs.BuildID
	File     string
	// Channel is the highest one that it is in.
	Channel Channel
	// Path is where the bundle is in the registry.
	Path   string
	Length int64        // of the bundle, in bytes
	Digest specs.Digest // SHA-256 of the bundle
	// Attachments are the names of what lies beside it.
	Attachments []string
	// Signed is how many of the package's keys have signed it, and Need how many
	// have to before hosts take it.
	Signed, Need int

	release *release
	binding *binding
}

// Find returns a release, that of the highest level if level is 0.
func (p *Publisher) Find(ctx context.Context, pack string, series specs.Series, level specs.Level) (*Published, error) {
	e, err := p.begin(ctx)
	if err != nil {
		return nil, err
	}
	all, err := e.listing(ctx, packageTarget(pack))
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(slices.Clone(all.Releases), func(r *release) bool {
		return r.Package != pack || r.Series != series || level != 0 && r.Level != level
	})
	if len(found) == 0 {
		what := ""
		if level != 0 {
			what = fmt.Sprintf(" level %d", level)
		}
		return nil, fail(ErrNotFound, pack, "the registry has no%s of series %s of this package", cmp.Or(what, " release"), series)
	}
	r := slices.MinFunc(found, compareReleases)
	b := e.trust.binding(pack)
	published := &Published{
		Package: r.Package, Series: r.Series, Level: r.Level, CVEs: r.CVEs, BuildIDs: r.BuildIDs, File: r.File, Channel: orStable(r.Channel),
		Path: bundleFile(r.Digest, r.File), Length: r.Length, Digest: r.Digest, Need: b.need(), release: r, binding: b,
	}
	for _, a := range r.Attachments {
		published.Attachments = append(published.Attachments, a.Name)
	}
	env, _, err := p.signature(ctx, r, b)
	if err != nil {
		return nil, err
	}
	published.Signed = env.signers(b)
	return published, nil
}

// signature reads the signature file of a release, and checks that what was
// signed, by one of the package's keys at least, is this release.
func (p *Publisher) signature(ctx context.Context, r *release, b *binding) (*envelope, []byte, error) {
	name := bundleFile(r.Digest, r.File) + ".sig"
	data, err := p.store.read(ctx, name, maxSignature)
	if err != nil {
		return nil, nil, err
	}
	env, err := readEnvelope(data)
	if err != nil {
		return nil, nil, &Error{ErrUntrusted, name, err}
	}
	want, err := r.payload()
	switch {
	case err != nil:
		return nil, nil, err
	case env.signers(b) == 0:
		return nil, nil, fail(ErrUntrusted, name, "signed by none of the keys of package %s (%s)", r.Package, b.keyID())
	case !bytes.Equal(env.Payload, want):
		return nil, nil, fail(ErrUntrusted, name, "what is signed is not what the registry lists")
	}
	return env, data, nil
}

// Download returns a release's bundle and its signature file. One of the
// package's keys at least has signed it.
func (p *Publisher) Download(ctx context.Context, of *Published) (bundle, signature []byte, err error) {
	if _, signature, err = p.signature(ctx, of.release, of.binding); err != nil {
		return nil, nil, err
	}
	if bundle, err = p.store.read(ctx, of.Path, of.Length); err != nil {
		return nil, nil, err
	}
	entry := Entry{Path: of.Path, Length: of.Length, Digest: of.Digest}
	if err := checkBundle(bundle, &entry); err != nil {
		return nil, nil, err
	}
	return bundle, signature, nil
}

// Attached returns what lies beside a release under a name: the file and, if it
// is the envelope of a statement, the statement, which one of the package's keys
// has signed and which is about the release's bundle.
func (p *Publisher) Attached(ctx context.Context, of *Published, name string) (file, statement []byte, err error) {
	i := slices.IndexFunc(of.release.Attachments, func(a attachment) bool { return a.Name == name })
	if i < 0 {
		return nil, nil, fail(ErrNotFound, name, "%s has no such attachment", of.File)
	}
	a := &of.release.Attachments[i]
	path := attachmentFile(of.Digest, a)
	if file, err = p.store.read(ctx, path, a.Length); err != nil {
		return nil, nil, err
	}
	if int64(len(file)) != a.Length || specs.DigestOf(file) != a.Digest {
		return nil, nil, fail(ErrUntrusted, path, "%d bytes: not those that the registry lists", len(file))
	}
	if a.Type != typeStatement {
		return file, nil, nil
	}
	env, err := readEnvelope(file)
	switch {
	case err != nil:
		return nil, nil, &Error{ErrUntrusted, path, err}
	case env.signers(of.binding) == 0:
		return nil, nil, fail(ErrUntrusted, path, "signed by none of the keys of package %s (%s)", of.Package, of.binding.keyID())
	}
	if err := checkStatement(env.Payload, of.release); err != nil {
		return nil, nil, &Error{ErrUntrusted, path, err}
	}
	return file, env.Payload, nil
}
