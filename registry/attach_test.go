package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// about returns an in-toto statement about a bundle.
func about(bundle []byte, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":%q,"subject":[{"name":"x","digest":{"sha256":%q}}],"predicateType":%q,"predicate":{}}`,
		statementType, specs.DigestOf(bundle), predicate)
}

func attachedRelease(level specs.Level) Release {
	r := newRelease("alpha", level, buildID(1))
	r.Attachments = []Attachment{
		{Name: "report.json", Data: []byte("{}")},
		{Name: "provenance.intoto.json", Data: about(r.Bundle, "https://slsa.dev/provenance/v1"), Statement: true},
	}
	return r
}

// TestAttachments: what lies beside a bundle comes back as it was, statements
// signed; hosts neither learn of it nor fetch it.
func TestAttachments(t *testing.T) {
	s := newSite(t)
	v := s.serve(t)
	r := attachedRelease(1)
	s.publish(t, r)
	found, err := s.p.Find(t.Context(), "alpha", specs.DefaultSeries, 0)
	if err != nil || !slices.Equal(found.Attachments, []string{"provenance.intoto.json", "report.json"}) || found.Signed != 1 || found.Need != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	if data, sig, err := s.p.Download(t.Context(), found); err != nil || string(data) != string(r.Bundle) || len(sig) == 0 {
		t.Errorf("bundle %q, signature %q, %v", data, sig, err)
	}
	if file, statement, err := s.p.Attached(t.Context(), found, "report.json"); err != nil || string(file) != "{}" || statement != nil {
		t.Errorf("report %q, %q, %v", file, statement, err)
	}
	file, statement, err := s.p.Attached(t.Context(), found, "provenance.intoto.json")
	if err != nil || string(statement) != string(r.Attachments[1].Data) || !strings.Contains(string(file), `"payloadType":"application/vnd.in-toto+json"`) {
		t.Errorf("provenance %q, %q, %v", file, statement, err)
	}
	if _, _, err := s.p.Attached(t.Context(), found, "vex"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.p.Find(t.Context(), "alpha", specs.DefaultSeries, 2); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	expect(t, s.client(t, v.URL), r.BuildIDs, r)
	seen, _ := v.take()
	for _, request := range seen {
		if strings.Contains(request, "report") || strings.Contains(request, "provenance") || strings.Contains(request, packagesPrefix) {
			t.Errorf("a host asks for %s", request)
		}
	}
	index, err := filepath.Glob(filepath.Join(s.dir, targetsDir, indexPrefix, "*"))
	if err != nil || len(index) != 1 {
		t.Fatal(index, err)
	}
	if data, err := os.ReadFile(index[0]); err != nil || strings.Contains(string(data), "report") {
		t.Errorf("the index names attachments: %s, %v", data, err)
	}
}

// TestAttachmentsLater: a release that is there gets attachments that it did
// not have. Those that it has stay, and lost files come back.
func TestAttachmentsLater(t *testing.T) {
	s := newSite(t)
	r := attachedRelease(1)
	bare := r
	bare.Attachments = nil
	s.publish(t, bare)
	s.publish(t, r)
	found, err := s.p.Find(t.Context(), "alpha", specs.DefaultSeries, 1)
	if err != nil || len(found.Attachments) != 2 {
		t.Fatal(found, err)
	}
	lost := attachmentFile(found.Digest, &found.release.Attachments[0])
	if err := os.Remove(filepath.Join(s.dir, lost)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.p.Attached(t.Context(), found, found.Attachments[0]); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	other := r
	other.Attachments = []Attachment{{Name: "report.json", Data: []byte("another")}, r.Attachments[1]}
	if err := s.p.Publish(t.Context(), other); !errors.Is(err, ErrPublished) {
		t.Error(err)
	}
	if file, _, err := s.p.Attached(t.Context(), found, "report.json"); err != nil || string(file) != "{}" {
		t.Errorf("report %q, %v", file, err)
	}
	if _, _, err := s.p.Attached(t.Context(), found, found.Attachments[0]); err != nil {
		t.Error(err)
	}
}

// TestAttachmentsRefused: what is not what it should be is neither published
// nor taken.
func TestAttachmentsRefused(t *testing.T) {
	s := newSite(t)
	for what, a := range map[string]Attachment{
		"a path":             {Name: "../x", Data: []byte("x")},
		"empty":              {Name: "x"},
		"too long":           {Name: "x", Data: make([]byte, MaxAttachment+1)},
		"no statement":       {Name: "x", Data: []byte("x"), Statement: true},
		"of another file":    {Name: "x", Data: about([]byte("other"), "p"), Statement: true},
		"of another type":    {Name: "x", Data: []byte(`{"_type":"x"}`), Statement: true},
		"that of a release":  {Name: "x", Data: about(newRelease("alpha", 1, buildID(1)).Bundle, predicateType), Statement: true},
		"one of a long name": {Name: strings.Repeat("x", maxFile+1), Data: []byte("x")},
	} {
		r := newRelease("alpha", 1, buildID(1))
		r.Attachments = []Attachment{a}
		if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	r := newRelease("alpha", 1, buildID(1))
	for n := range maxAttachments + 1 {
		r.Attachments = append(r.Attachments, Attachment{Name: fmt.Sprint(n), Data: []byte("x")})
	}
	if err := s.p.Publish(t.Context(), r); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	s.publish(t, attachedRelease(1))
	found, err := s.p.Find(t.Context(), "alpha", specs.DefaultSeries, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range found.release.Attachments {
		a := &found.release.Attachments[i]
		s.write(t, attachmentFile(found.Digest, a), make([]byte, a.Length))
		if _, _, err := s.p.Attached(t.Context(), found, a.Name); !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", a.Name, err)
		}
	}
	// Who holds the keys of the index alone lists what the package did not sign.
	stranger := newTestKey(t)
	a := &found.release.Attachments[0]
	forged, err := signStatement(t.Context(), about([]byte("bundle of alpha at level 1"), "p"), []signer{stranger})
	if err != nil {
		t.Fatal(err)
	}
	a.Length, a.Digest = int64(len(forged)), specs.DigestOf(forged)
	s.write(t, attachmentFile(found.Digest, a), forged)
	if _, _, err := s.p.Attached(t.Context(), found, a.Name); !errors.Is(err, ErrUntrusted) {
		t.Errorf("forged: %v", err)
	}
}
