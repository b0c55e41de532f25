package registry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/fother/fother/specs/testenv"
)

// newTestKey returns a key that is in memory alone.
func newTestKey(t testing.TB) signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSigner(FromCrypto(private), "test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newSiteWith is newSite with other options.
func newSiteWith(t testing.TB, change func(*InitOptions), open ...KeyOption) *site {
	t.Helper()
	s := emptySite(t)
	o := InitOptions{URL: s.dir, Keys: s.keys, Now: s.clock, More: open}
	change(&o)
	var err error
	if s.root, err = Init(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.p = s.open(t, open...)
	return s
}

// TestEncryptedKeys: a passphrase opens the keys that sign, once, and no
// others; without it nothing is signed.
func TestEncryptedKeys(t *testing.T) {
	phrase, asked := []byte("correct horse"), []string(nil)
	others := []KeyOption{}
	for _, role := range keyRoles[:4] { // scrypt takes its time
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, WithSigner(role, FromCrypto(private)))
	}
	ask := WithPassphrase(func(file string) ([]byte, error) {
		asked = append(asked, filepath.Base(file))
		return phrase, nil
	})
	s := newSiteWith(t, func(o *InitOptions) { o.Passphrase = phrase }, append(others, ask)...)
	files, err := filepath.Glob(filepath.Join(s.keys, "*"+keySuffix))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(data), encryptedBlock) || strings.Contains(string(data), "-----BEGIN "+privateBlock) {
			t.Errorf("%s: %v\n%s", file, err, data)
		}
	}
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	if len(asked) != 1 {
		t.Errorf("asked for the passphrase of %q", asked)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)

	before := s.files(t)
	two := newRelease("alpha", 2, buildID(1))
	for name, option := range map[string]KeyOption{
		"none":  func(*keyring) error { return nil },
		"wrong": WithPassphrase(func(string) ([]byte, error) { return []byte("wrong"), nil }),
		"no terminal": WithPassphrase(func(string) ([]byte, error) {
			return nil, errors.New("there is no terminal")
		}),
	} {
		err := s.open(t, append(others, option)...).Publish(t.Context(), two)
		var ours *Error
		if !errors.Is(err, ErrPassphrase) || !errors.As(err, &ours) || ours.Hint() == "" || !strings.Contains(err.Error(), s.keys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := s.files(t); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("files were %q, are %q", before, after)
	}
	// A file in which the public half is another key's signs nothing.
	mixed := filepath.Join(s.keys, "timestamp.1.pem")
	other, err := os.ReadFile(filepath.Join(s.keys, "package.default.pem"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(mixed)
	if err != nil {
		t.Fatal(err)
	}
	_, locked := pem.Decode(other)
	public, _ := pem.Decode(own)
	if err := os.WriteFile(mixed, append(pem.EncodeToMemory(public), locked...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.open(t, append(others, ask)...).Publish(t.Context(), two); !errors.Is(err, ErrKey) {
		t.Errorf("with a key that does not belong to its public half: %v", err)
	}
}

// TestKeysFromEnvironment publishes as a CI service does: root.json in a
// folder, the keys in variables.
func TestKeysFromEnvironment(t *testing.T) {
	s := newSite(t)
	s.addKey(t, "package.alpha-1.x")
	env := map[string]string{}
	for file, variable := range map[string]string{
		"bins.1": "FOTHER_KEY_BINS", "snapshot.1": "FOTHER_KEY_SNAPSHOT", "timestamp.1": "FOTHER_KEY_TIMESTAMP", "targets.1": "FOTHER_KEY_TARGETS",
		"package.default": "FOTHER_KEY_PACKAGE", "package.alpha-1.x": "FOTHER_KEY_PACKAGE_ALPHA_1_X", "root.1": "",
	} {
		path := filepath.Join(s.keys, file+keySuffix)
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		env[variable] = string(data)
	}
	get := WithEnvironment(func(name string) string {
		if name == "" {
			t.Error("a variable without a name is asked for")
		}
		return env[name]
	})
	s.p = s.open(t, get)
	own, other := newRelease("alpha-1.x", 1, buildID(1)), newRelease("beta", 1, buildID(1))
	s.publish(t, own, other)
	c := s.client(t, s.dir)
	expect(t, c, own.BuildIDs, own, other)
	entries, err := c.Lookup(t.Context(), own.BuildIDs)
	if err != nil || entries[0].KeyID == entries[1].KeyID {
		t.Errorf("both packages have the same key: %+v, %v", entries, err)
	}
	for variable, text := range map[string]string{"FOTHER_KEY_TIMESTAMP": "nonsense", "FOTHER_KEY_BINS": strings.Repeat("x", maxKeyFile+1), "FOTHER_KEY_SNAPSHOT": ""} {
		keep := env[variable]
		env[variable] = text
		p, err := Open(s.dir, s.keys, get)
		if err == nil {
			err = p.Publish(t.Context(), newRelease("beta", 2, buildID(1)))
		}
		if !errors.Is(err, ErrKey) || text != "" && !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: %v", variable, err)
		}
		env[variable] = keep
	}
}

// kms is a key behind a socket, as of a KMS: the client has no private key.
type kms struct {
	pub  crypto.PublicKey
	addr string
}

type kmsRequest struct {
	Message []byte
}

func newKMS(t *testing.T) *kms {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "kms"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var r kmsRequest
			if json.NewDecoder(c).Decode(&r) == nil {
				sig, err := FromCrypto(private).Sign(context.Background(), r.Message)
				if err != nil {
					t.Error(err)
				}
				_, _ = c.Write(sig)
			}
			c.Close()
		}
	}()
	return &kms{private.Public(), l.Addr().String()}
}

func (k *kms) Public() crypto.PublicKey { return k.pub }

func (k *kms) Sign(ctx context.Context, message []byte) ([]byte, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", k.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(kmsRequest{message}); err != nil {
		return nil, err
	}
	return io.ReadAll(c)
}

// TestKMS makes a registry whose keys, but that of bins, are behind a socket,
// and publishes in it.
func TestKMS(t *testing.T) {
	var keys []KeyOption
	services := map[string]*kms{}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP, "package.default"} {
		services[role] = newKMS(t)
		keys = append(keys, WithSigner(role, services[role]))
	}
	s := newSiteWith(t, func(*InitOptions) {}, keys...)
	files, err := filepath.Glob(filepath.Join(s.keys, "*"+keySuffix))
	if err != nil || len(files) != 1 || filepath.Base(files[0]) != "bins.1.pem" {
		t.Fatal(files, err)
	}
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)
	// A service that is away, or has another key, signs nothing.
	two := newRelease("alpha", 2, buildID(1))
	good := *services[metadata.TIMESTAMP]
	services[metadata.TIMESTAMP].addr = services[metadata.SNAPSHOT].addr
	if err := s.p.Publish(t.Context(), two); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "signer of timestamp") {
		t.Errorf("a service with another key: %v", err)
	}
	services[metadata.TIMESTAMP].addr = good.addr + "x"
	if err := s.p.Publish(t.Context(), two); !errors.Is(err, ErrKey) {
		t.Errorf("a service that is away: %v", err)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)
	services[metadata.TIMESTAMP].addr = good.addr
	s.publish(t, two)
	expect(t, s.client(t, s.dir), one.BuildIDs, one, two)
	for _, bad := range []string{"", "package", "package.", "package.a/b", "else", "root.1"} {
		if _, err := Open(s.dir, s.keys, WithSigner(bad, &good)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a key of role %q: %v", bad, err)
		}
	}
}

// TestCommandSigns has openssl sign by keys that the registry does not see.
func TestCommandSigns(t *testing.T) {
	testenv.Needs(t, "openssl")
	for name, line := range map[string]string{
		"raw":    "openssl dgst -sha256 -sign %s",
		"base64": "openssl dgst -sha256 -sign %s | openssl base64",
	} {
		s := newSite(t)
		one := newRelease("alpha", 1, buildID(1))
		secret := filepath.Join(t.TempDir(), "secret.pem")
		if out, err := exec.Command("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", secret).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		der, err := exec.Command("openssl", "pkey", "-in", secret, "-pubout", "-outform", "DER").Output()
		if err != nil {
			t.Fatal(err)
		}
		write := func(line string) {
			t.Helper()
			block := &pem.Block{Type: publicBlock, Headers: map[string]string{commandHeader: line}, Bytes: der}
			if err := os.WriteFile(filepath.Join(s.keys, "package.alpha.pem"), pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			s.p = s.open(t)
		}
		for line, want := range map[string]string{
			"echo no smart card >&2; exit 3": "no smart card", "true": "ign", "cat /dev/zero": "more than", "echo " + base64.StdEncoding.EncodeToString(der): "ign",
		} {
			write(line)
			if err := s.p.Publish(t.Context(), one); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "package.alpha.pem") {
				t.Errorf("%s: %v", line, err)
			}
		}
		write(fmt.Sprintf(line, secret))
		s.publish(t, one)
		expect(t, s.client(t, s.dir), one.BuildIDs, one)
		t.Log(name)
	}
}

// TestRootOfThree makes a registry whose root needs two of three keys.
func TestRootOfThree(t *testing.T) {
	s := newSiteWith(t, func(o *InitOptions) { o.RootKeys, o.RootThreshold = 3, 2 })
	one := newRelease("alpha", 1, buildID(1))
	s.publish(t, one)
	s.now = s.now.Add(rootValidity * 3 / 4)
	s.drop(t, "root.2")
	if err := s.p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)
	s.now = s.now.Add(rootValidity * 3 / 4)
	s.drop(t, "root.3")
	if err := s.p.Refresh(t.Context()); !errors.Is(err, ErrDue) || !strings.Contains(err.Error(), "3.root.json") {
		t.Errorf("one of three keys: %v", err)
	}
	expect(t, s.client(t, s.dir), one.BuildIDs, one)
	for _, o := range []InitOptions{{RootKeys: 2, RootThreshold: 3}, {RootKeys: maxRoleKeys + 1}} {
		o.URL, o.Keys = filepath.Join(t.TempDir(), "r"), filepath.Join(t.TempDir(), "k")
		if _, err := Init(t.Context(), o); !errors.Is(err, ErrKey) {
			t.Errorf("%d of %d keys: %v", o.RootThreshold, o.RootKeys, err)
		}
	}
}

// FuzzKeys: whatever a key file holds, no key is made of what is none.
func FuzzKeys(f *testing.F) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: pub, Headers: map[string]string{commandHeader: "true"}}))
	f.Add([]byte("-----BEGIN " + encryptedBlock + "-----\n\n-----END " + encryptedBlock + "-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := (&keyring{}).parseKeys(data, "file")
		if (err == nil) != (len(keys) > 0) || len(keys) > maxFileKeys {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if _, err := k.public(); err != nil || k.id == "" {
				t.Errorf("key %q: %v", k.id, err)
			}
		}
	})
}
