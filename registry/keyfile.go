package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// PEM blocks of a key file. A public key comes before what is encrypted or kept
// elsewhere: so it is known which key that is before it is asked for.
const (
	privateBlock = "PRIVATE KEY" // PKCS #8, RFC 5958
	publicBlock  = "PUBLIC KEY"  // PKIX, RFC 5280
	// encryptedBlock is PKCS #8 under scrypt and NaCl's secretbox, as cosign
	// writes it.
	encryptedBlock = "ENCRYPTED SIGSTORE PRIVATE KEY"
	// commandHeader is the header of a public block that has the command line of
	// a program that signs by the key.
	commandHeader = "Command"
)

const (
	keyMode    = 0o600
	maxKeyFile = 64 << 10
	// maxFileKeys bounds the keys in one file or variable.
	maxFileKeys = 16
)

// parseKeys reads the keys of a file, or of an environment variable that holds
// what a file would. Nothing is decrypted: that waits until the key signs. Of a
// public key alone the signer cannot sign.
func (k *keyring) parseKeys(data []byte, file string) ([]signer, error) {
	var keys []signer
	var public *signer // of the block before, if a private one may follow
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if data = rest; len(keys) >= maxFileKeys {
			return nil, fail(ErrKey, file, "more than %d keys", maxFileKeys)
		}
		s, err := k.parseBlock(block, file, public)
		if err != nil {
			return nil, err
		}
		if public != nil && s.id == public.id {
			*public, public = s, nil
			continue
		}
		keys, public = append(keys, s), nil
		if block.Type == publicBlock && s.sign == nil {
			public = &keys[len(keys)-1]
		}
	}
	if len(keys) == 0 {
		return nil, fail(ErrKey, file, "no key in PEM: want a block %q, %q or %q", privateBlock, encryptedBlock, publicBlock)
	}
	return keys, nil
}

// parseBlock reads one PEM block; public is the public key that stands before
// it, or nil.
func (k *keyring) parseBlock(block *pem.Block, file string, public *signer) (signer, error) {
	switch block.Type {
	case privateBlock:
		private, err := parsePrivate(block.Bytes)
		if err != nil {
			return signer{}, &Error{ErrKey, file, err}
		}
		return newSigner(FromCrypto(private), file)
	case publicBlock:
		pub, err := publicKey(block.Bytes).parse()
		if err != nil {
			return signer{}, &Error{ErrKey, file, err}
		}
		if line := strings.TrimSpace(block.Headers[commandHeader]); line != "" {
			return newSigner(&command{line, pub}, file)
		}
		return publicSigner(pub, file)
	case encryptedBlock:
		locked := &locked{ring: k, file: file, data: block.Bytes}
		if public == nil {
			if _, err := locked.open(); err != nil {
				return signer{}, err
			}
			return newSigner(FromCrypto(locked.key), file)
		}
		locked.pub = public.pub
		return newSigner(locked, file)
	}
	return signer{}, fail(ErrKey, file, "PEM block %.80q: want %q, %q or %q", block.Type, privateBlock, encryptedBlock, publicBlock)
}

// parsePrivate reads a private key of a kind that signs here.
func parsePrivate(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case ed25519.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		if key.Curve == elliptic.P256() {
			return key, nil
		}
	}
	return nil, errors.New("private key: want Ed25519 or ECDSA on P-256")
}

// readSecret reads a small regular file that nobody but its owner can read.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &Error{ErrKey, path, err}
	}
	switch {
	case !info.Mode().IsRegular() || info.Size() > maxKeyFile:
		return nil, fail(ErrKey, path, "not a key file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, fail(ErrKey, path, "others can read this key (mode %#o): it is not used", info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{ErrKey, path, err}
	}
	return data, nil
}

// makeKey makes an Ed25519 key and its file, which must not exist; encrypted if
// there is a passphrase.
func makeKey(path string, passphrase []byte) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return &Error{ErrKey, path, err}
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return &Error{ErrKey, path, err}
	}
	if len(passphrase) == 0 {
		return writeKey(path, &pem.Block{Type: privateBlock, Bytes: der})
	}
	pub, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return &Error{ErrKey, path, err}
	}
	box, err := encrypted.Encrypt(der, passphrase)
	if err != nil {
		return &Error{ErrKey, path, err}
	}
	return writeKey(path, &pem.Block{Type: publicBlock, Bytes: pub}, &pem.Block{Type: encryptedBlock, Bytes: box})
}

// writeKey makes a key file, which must not exist.
func writeKey(path string, blocks ...*pem.Block) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keyMode)
	if errors.Is(err, fs.ErrExist) {
		return &Error{ErrExists, path, errors.New("keys are never overwritten")}
	}
	if err != nil {
		return &Error{ErrKey, path, err}
	}
	var errs []error
	for _, b := range blocks {
		errs = append(errs, pem.Encode(f, b))
	}
	if err := errors.Join(append(errs, f.Sync(), f.Close())...); err != nil {
		return &Error{ErrKey, path, err}
	}
	return nil
}
