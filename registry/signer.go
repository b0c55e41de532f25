package registry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Signer signs by a private key, wherever that is: in a file, a KMS, a smart
// card. What it returns is verified before it is used.
type Signer interface {
	// Public returns the public half, Ed25519 or ECDSA on P-256.
	Public() crypto.PublicKey
	// Sign returns the signature of a message, of at most some megabytes: for
	// Ed25519 that of RFC 8032, for ECDSA that of the message's SHA-256 in
	// ASN.1 DER.
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// FromCrypto makes a Signer of a key of the standard library, or of a library
// for a KMS or for PKCS #11 that has its interface.
func FromCrypto(key crypto.Signer) Signer { return local{key} }

type local struct{ crypto.Signer }

func (l local) Sign(_ context.Context, message []byte) ([]byte, error) {
	if _, ok := l.Public().(ed25519.PublicKey); ok {
		return l.Signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return l.Signer.Sign(rand.Reader, sum[:], crypto.SHA256)
}

// signer is a key of a keyring.
type signer struct {
	id   string // as in TUF
	file string // where it is from, for errors
	pub  crypto.PublicKey
	sign func(ctx context.Context, message []byte) ([]byte, error) // nil if only the public key is at hand
}

// newSigner takes up a key. What it signs is verified: a key that does not
// belong to its public half would make a registry that nobody trusts.
func newSigner(s Signer, file string) (signer, error) {
	k, err := publicSigner(s.Public(), file)
	if err != nil {
		return signer{}, err
	}
	verifier, err := loadVerifier(k.pub)
	if err != nil {
		return signer{}, &Error{ErrKey, file, err}
	}
	k.sign = func(ctx context.Context, message []byte) ([]byte, error) {
		sig, err := s.Sign(ctx, message)
		if err == nil {
			err = verifier.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message))
		}
		if ours := (*Error)(nil); err != nil && !errors.As(err, &ours) {
			err = fail(ErrKey, file, "sign: %w", err)
		}
		return sig, err
	}
	return k, nil
}

// publicSigner is a key that others have.
func publicSigner(pub crypto.PublicKey, file string) (signer, error) {
	switch pub.(type) {
	case ed25519.PublicKey, *ecdsa.PublicKey:
	default:
		return signer{}, fail(ErrKey, file, "%T: want Ed25519 or ECDSA on P-256", pub)
	}
	id, err := keyID(pub)
	if err != nil {
		return signer{}, &Error{ErrKey, file, err}
	}
	return signer{id: id, file: file, pub: pub}, nil
}

func loadVerifier(pub crypto.PublicKey) (signature.Verifier, error) {
	return signature.LoadVerifier(pub, crypto.SHA256)
}

// forTUF is a signer as go-tuf wants it, for one call. It keeps the error, in
// whose place go-tuf has one of its own.
type forTUF struct {
	pub  crypto.PublicKey
	sign func(message []byte) ([]byte, error)
	err  error
}

func (s *forTUF) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.pub, nil
}

func (s *forTUF) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	data, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(data)
	s.err = err
	return sig, err
}

// locked is a key that is decrypted when it first signs.
type locked struct {
	ring *keyring
	file string
	data []byte
	pub  crypto.PublicKey

	mu  sync.Mutex // guards key
	key crypto.Signer
}

func (l *locked) Public() crypto.PublicKey { return l.pub }

func (l *locked) Sign(ctx context.Context, message []byte) ([]byte, error) {
	key, err := l.open()
	if err != nil {
		return nil, err
	}
	return local{key}.Sign(ctx, message)
}

func (l *locked) open() (crypto.Signer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.key != nil {
		return l.key, nil
	}
	der, err := l.ring.decrypt(l.file, l.data)
	if err != nil {
		return nil, err
	}
	if l.key, err = parsePrivate(der); err != nil {
		return nil, &Error{ErrKey, l.file, err}
	}
	return l.key, nil
}

// decrypt tries the passphrase that opened another key first.
func (k *keyring) decrypt(file string, data []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.phrase != nil {
		if der, err := encrypted.Decrypt(data, k.phrase); err == nil {
			return der, nil
		}
	}
	if k.ask == nil {
		return nil, fail(ErrPassphrase, file, "the key is encrypted, and no passphrase is given")
	}
	phrase, err := k.ask(file)
	if err != nil {
		return nil, &Error{ErrPassphrase, file, err}
	}
	der, err := encrypted.Decrypt(data, phrase)
	if err != nil {
		return nil, fail(ErrPassphrase, file, "the passphrase does not open this key: %w", err)
	}
	k.phrase = phrase
	return der, nil
}

// command signs by a program: it reads the message from standard input and
// writes the signature to standard output, as it is or in Base64.
type command struct {
	line string // for /bin/sh -c
	pub  crypto.PublicKey
}

const (
	// maxSigning bounds the time that a program may take to sign. It may ask
	// its user.
	maxSigning = 5 * time.Minute
	// maxSigned bounds what it writes, in bytes.
	maxSigned = 4 << 10
)

func (c *command) Public() crypto.PublicKey { return c.pub }

func (c *command) Sign(ctx context.Context, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxSigning)
	defer cancel()
	out, says := &bounded{strict: true}, &bounded{}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), out, says
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case out.full:
		err = fmt.Errorf("it writes more than %d bytes", maxSigned)
	}
	if err != nil {
		// Not the command line, which may have a password.
		return nil, fmt.Errorf("its command: %w: %.400s", err, bytes.TrimSpace(says.kept))
	}
	sig := out.kept
	v, err := loadVerifier(c.pub)
	if err != nil {
		return nil, err
	}
	if v.VerifySignature(bytes.NewReader(sig), bytes.NewReader(message)) == nil {
		return sig, nil
	}
	if plain, err := base64.StdEncoding.DecodeString(string(bytes.Join(bytes.Fields(sig), nil))); err == nil {
		return plain, nil
	}
	return sig, nil // the caller finds that it is none
}

// bounded keeps the first maxSigned bytes that are written. If strict it takes
// no more.
type bounded struct {
	kept   []byte
	strict bool
	full   bool // there was more
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), maxSigned-len(b.kept))
	b.kept = append(b.kept, p[:n]...)
	b.full = b.full || n < len(p)
	if b.strict && n < len(p) {
		return n, io.ErrShortWrite
	}
	return len(p), nil
}
