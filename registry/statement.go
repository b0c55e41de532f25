package registry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs"
)

// publicKey is a PKIX public key in DER (RFC 5280, section 4.1).
type publicKey []byte

const maxPublicKey = 256

// parse returns the key if it is of a kind that signs bundles.
func (k publicKey) parse() (crypto.PublicKey, error) {
	if len(k) > maxPublicKey {
		return nil, fmt.Errorf("key of %d bytes: want at most %d", len(k), maxPublicKey)
	}
	key, err := x509.ParsePKIXPublicKey(k)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return key, nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	}
	return nil, errors.New("public key: want Ed25519 or ECDSA on P-256")
}

// id returns the key's identity as in TUF, "" if it is none.
func (k publicKey) id() string {
	key, err := k.parse()
	if err != nil {
		return ""
	}
	id, err := keyID(key)
	if err != nil {
		return ""
	}
	return id
}

func keyID(key crypto.PublicKey) (string, error) {
	k, err := metadata.KeyFromPublicKey(key)
	if err != nil {
		return "", err
	}
	return k.ID()
}

// The signature beside a bundle is a DSSE envelope
// (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md) around
// an in-toto statement (https://in-toto.io/Statement/v1) that says which
// release the bundle is. The library's verifier is not used: it links SSH and
// prints.
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     []byte              `json:"payload"`
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string                  `json:"name"`
	Digest map[string]specs.Digest `json:"digest"`
}

type predicate struct {
	Package  string          `json:"package"`
	Series   specs.Series    `json:"series"`
	Level    specs.Level     `json:"level"`
	Length   int64           `json:"length"`
	CVEs     []string        `json:"cves,omitempty"`
	BuildIDs []specs.BuildID `json:"build_ids"`
}

const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://github.com/fother/fother/registry/release/v1"
)

// signed returns the bytes that a DSSE signature covers: the pre-authentication
// encoding.
func (e *envelope) signed() []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload)
}

// payload returns the statement that a release's signatures are of. It is the
// same for all who sign.
func (r *release) payload() ([]byte, error) {
	return json.Marshal(statement{
		Type:          statementType,
		Subject:       []subject{{r.File, map[string]specs.Digest{"sha256": r.Digest}}},
		PredicateType: predicateType,
		Predicate:     predicate{r.Package, r.Series, r.Level, r.Length, r.CVEs, r.BuildIDs},
	})
}

// signStatement returns an envelope around an in-toto statement.
func signStatement(ctx context.Context, payload []byte, signers []signer) ([]byte, error) {
	e := envelope{PayloadType: payloadType, Payload: payload}
	if err := e.addSignatures(ctx, signers); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// addSignatures signs by those of the given keys that have not signed yet.
func (e *envelope) addSignatures(ctx context.Context, signers []signer) error {
	for _, s := range signers {
		pub, err := s.public()
		if err != nil {
			return err
		}
		if e.signedBy(pub) {
			continue
		}
		sig, err := s.sign(ctx, e.signed())
		if err != nil {
			return err
		}
		e.Signatures = append(e.Signatures, envelopeSignature{s.id, sig})
	}
	return nil
}

// readEnvelope reads the envelope of a statement. Nothing in it is verified.
func readEnvelope(data []byte) (*envelope, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("not a signature: %w", err)
	}
	if e.PayloadType != payloadType {
		return nil, fmt.Errorf("signature of a %.80q: want %s", e.PayloadType, payloadType)
	}
	return &e, nil
}

// signers returns how many of the bound keys have signed.
func (e *envelope) signers(b *binding) (n int) {
	if b == nil {
		return 0
	}
	for _, k := range b.Keys {
		if e.signedBy(k) {
			n++
		}
	}
	return n
}

// signedFor checks that enough keys of an entry's package have signed.
func (e *envelope) signedFor(of *Entry) error {
	bound := originOf(of).binding
	if bound == nil {
		return fmt.Errorf("no key is bound to package %s", of.Package)
	}
	switch need, valid := bound.need(), e.signers(bound); {
	case valid == 0:
		return fmt.Errorf("signed by none of the keys of package %s (%s)", of.Package, of.KeyID)
	case valid < need:
		return &tooFewError{of.Package, valid, need}
	}
	return nil
}

// verifyRelease checks that data is the signature of the release that e is of,
// by enough of its package's keys, and that what they signed is what e says.
func verifyRelease(data []byte, e *Entry) error {
	env, err := readEnvelope(data)
	if err != nil {
		return err
	}
	if err := env.signedFor(e); err != nil {
		return err
	}
	var s statement
	if err := json.Unmarshal(env.Payload, &s); err != nil {
		return fmt.Errorf("signed statement: %w", err)
	}
	return s.check(e)
}

func (e *envelope) signedBy(k publicKey) bool {
	key, err := k.parse()
	if err != nil {
		return false
	}
	v, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return false
	}
	// Key ids are hints that nobody signed.
	return slices.ContainsFunc(e.Signatures[:min(len(e.Signatures), maxPackageKeys)], func(s envelopeSignature) bool {
		return v.VerifySignature(bytes.NewReader(s.Sig), bytes.NewReader(e.signed())) == nil
	})
}

// tooFewError means that a bundle has right signatures, but not enough of them.
type tooFewError struct {
	pack        string
	valid, need int
}

func (e *tooFewError) Error() string {
	return fmt.Sprintf("signed by %d of %d: package %s asks for the signatures of %d of its keys", e.valid, e.need, e.pack, e.need)
}

// Is makes it one of ErrUntrusted.
func (e *tooFewError) Is(class error) bool { return class == ErrUntrusted }

// signatureError gives what verifyRelease said of a file its class.
func signatureError(name string, err error) error {
	if _, few := errors.AsType[*tooFewError](err); few {
		return &Error{ErrUnsigned, name, err}
	}
	return &Error{ErrUntrusted, name, err}
}

// check holds a statement to an entry of the index: the index may not say of a
// bundle what its package's owner did not.
func (s *statement) check(e *Entry) error {
	switch p := s.Predicate; {
	case s.Type != statementType || s.PredicateType != predicateType:
		return fmt.Errorf("signed statement of type %.80q about %.80q", s.Type, s.PredicateType)
	case len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != e.Digest || s.Subject[0].Name != e.File || p.Length != e.Length:
		return errors.New("the signature is of another file")
	case p.Package != e.Package || p.Series != e.Series || p.Level != e.Level:
		return fmt.Errorf("signed as %.80s level %d of series %.80s, listed as %s level %d of series %s", p.Package, p.Level, p.Series, e.Package, e.Level, e.Series)
	case !slices.Equal(p.CVEs, e.CVEs):
		return errors.New("signed with other CVEs than it is listed with")
	case !slices.Contains(p.BuildIDs, e.BuildID):
		return fmt.Errorf("not signed for build-id %s", e.BuildID)
	}
	return nil
}
