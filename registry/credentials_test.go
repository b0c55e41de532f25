package registry

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	getter "github.com/hashicorp/go-getter/v2"
)

const password = "p4ss w0rd/which?nobody#sees"

// toldAll is all that a client logs and every error, in which no secret may be.
type toldAll struct{ bytes.Buffer }

func (l *toldAll) check(t *testing.T, err error) {
	t.Helper()
	fmt.Fprintf(l, "%v\n%+v\n", err, err)
	for _, secret := range []string{password, url.QueryEscape(password), url.PathEscape(password), "p4ss", s3Secret, base64.StdEncoding.EncodeToString([]byte("fother:" + password))} {
		if strings.Contains(l.String(), secret) {
			t.Errorf("a secret was told: %s", l.String())
		}
	}
}

// checkAccess publishes and reads with right credentials, and then with wrong
// ones and without any, which set changes.
func checkAccess(t *testing.T, right string, wrong map[string]string, set func(name string)) {
	t.Helper()
	s := newSiteAt(t, right)
	r := newRelease("alpha", 1, buildID(1))
	s.publish(t, r)
	log := &toldAll{}
	read := func(address string) error {
		c, err := NewClient(ClientOptions{URL: address, Root: s.root, State: t.TempDir(), Now: s.clock,
			Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err == nil {
			err = c.Update(t.Context())
		}
		log.check(t, err)
		return err
	}
	if err := read(right); err != nil {
		t.Error(err)
	}
	for name, address := range wrong {
		set(name)
		if err := read(address); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: update: %v", name, err)
		}
		p, err := Open(address, s.keys)
		if err == nil {
			err = p.Publish(t.Context(), newRelease("alpha", 2, buildID(1)))
		}
		log.check(t, err)
		if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), Redacted(address)) {
			t.Errorf("%s: publish: %v, want one that names %s", name, err, Redacted(address))
		}
	}
}

func withUser(address, user, password string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

func TestWebCredentials(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("fother:{PLAIN}"+password+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	v := nginx(t, "dav_methods PUT MKCOL; create_full_put_path on;", "auth_basic test; auth_basic_user_file "+users+";")
	checkAccess(t, withUser(v.url, "fother", password), map[string]string{
		"wrong": withUser(v.url, "fother", password+"x"), "none": v.url,
	}, func(string) {})

	netrc := filepath.Join(t.TempDir(), "netrc")
	write := func(text string) {
		if err := os.WriteFile(netrc, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("NETRC", netrc)
	if err := os.WriteFile(users, []byte("fother:{PLAIN}p4ss\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	machine := "machine " + v.server.Hostname()
	write(machine + " login fother password p4ss\n")
	checkAccess(t, v.url+"/other", map[string]string{"wrong": v.url + "/other", "none": v.url + "/other"}, func(name string) {
		if name == "wrong" {
			write(machine + " login fother password p4ssx\n")
		} else {
			write("")
		}
	})
}

func TestS3Credentials(t *testing.T) {
	v := startS3(t)
	checkAccess(t, v.url, map[string]string{"wrong": v.url, "none": v.url}, func(name string) {
		if name == "wrong" {
			t.Setenv("AWS_ACCESS_KEY_ID", "OTHER")
		} else {
			t.Setenv("AWS_ACCESS_KEY_ID", "")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
		}
	})
	// The server may be named by the environment too, and the key by a file.
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3Key, s3Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_ENDPOINT_URL", v.server.String())
	newSiteAt(t, "s3://patches/another")
}

func TestOCICredentials(t *testing.T) {
	v := dockerRegistry(t, password)
	checkAccess(t, withUser(v.url, "fother", password), map[string]string{
		"wrong": withUser(v.url, "fother", password+"x"), "none": v.url,
	}, func(string) {})

	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, v.server.Host, base64.StdEncoding.EncodeToString([]byte("fother:"+password)))
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"DOCKER_AUTH_CONFIG": config, "REGISTRY_AUTH_FILE": file, "DOCKER_CONFIG": dir} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			s := newSiteAt(t, v.url+"/"+strings.ToLower(name))
			expect(t, s.client(t, s.url), nil)
		})
	}
	t.Setenv("DOCKER_AUTH_CONFIG", `{"auths": p4ss`)
	_, err := Open(v.url, t.TempDir())
	(&toldAll{}).check(t, err)
	if !errors.Is(err, ErrDenied) {
		t.Errorf("credentials that cannot be read: %v", err)
	}
}

// TestCredentialsStay: no other server gets them.
func TestCredentialsStay(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got.Add(1)
		if r.Header.Get("Authorization") != "" {
			t.Error("another server got the credentials")
		}
	}))
	defer other.Close()
	at, err := parseAddress(withUser("http://127.0.0.1:1", "fother", password))
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &strictly{newCareful(), at}}).Get(other.URL)
	if err != nil || got.Load() != 1 {
		t.Fatal(err)
	}
	res.Body.Close()
}

// TestBlobsElsewhere: an OCI registry may hold its blobs on another server,
// which gets no credentials, and whose answers are believed no more.
func TestBlobsElsewhere(t *testing.T) {
	t.Parallel()
	v := dockerRegistry(t, password)
	p := newProxy(t, v)
	s := newSiteAt(t, withUser(v.url, "fother", password))
	through := withUser(p.site, "fother", password)
	r := newRelease("alpha", 1, buildID(1))
	r.Bundle = bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	s.publish(t, r)
	bundle, asked := r.Bundle, 0
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "" {
			t.Error("another server got the credentials")
		}
		w.Write(bundle)
	}))
	defer other.Close()
	p.set(func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Authorization") != "" {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	expect(t, s.client(t, through), r.BuildIDs, r)
	if asked != 1 {
		t.Errorf("the other server was asked %d times", asked)
	}
	bundle = bytes.Repeat([]byte("x"), len(bundle))
	c := s.client(t, through)
	if err := c.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fetchLevel(t, c, r.BuildIDs, 1); !errors.Is(err, ErrUntrusted) {
		t.Errorf("another blob: %v", err)
	}
}

// TestRegistryAddresses: some are refused before anything is asked.
func TestRegistryAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "ftp://host/x", "s3:///x", "s3://bucket?endpoint=host", "s3://bucket?endpoint=http://user:p4ss@host", "s3://bucket?prefix=x", "s3://key:p4ss@bucket",
		"s3://bucket/x#y", "s3://bucket?region=a&region=b", "oci://host", "oci://host/UPPER", "oci://host/name:tag", "oci://host/name?insecure=1", "oci:///x",
		"http://fother:p4ss@ho st/", "http://fother:p4ss@host/?x", "git::http://host/x", "http://host/x?archive=tar", "http://%zz", "S4://x/y",
	} {
		_, err := Open(address, t.TempDir())
		if !errors.Is(err, ErrUnreachable) || strings.Contains(fmt.Sprint(err), "p4ss") {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"http://fother:p4ss@host/", "https://p4ss@host/x", "http://host/blob?token=p4ss", "oci://p4ss@host/x", "http://fother:p4ss@ho st/"} {
		if shown := Redacted(address); strings.Contains(shown, "p4ss") {
			t.Errorf("%s: shown as %s", address, shown)
		}
	}
	_, err := http.Get("http://127.0.0.1:1/blob?token=p4ss")
	if err = fetchError(t.Context(), "blob", err); !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "p4ss") {
		t.Errorf("a token in an address: %v", err)
	}
}

// TestGetterIsCareful: what is there already is no file that was fetched.
func TestGetterIsCareful(t *testing.T) {
	t.Parallel()
	s := newSiteAt(t, startS3(t).url)
	source := s.p.store.(*conditional).source
	dst := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dst, []byte("was there"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := &getter.Client{Getters: []getter.Getter{source.getter(timestampFile, maxTimestamp)}, Decompressors: map[string]getter.Decompressor{}}
	if _, err := client.Get(t.Context(), &getter.Request{Src: "s3://patches/x", Dst: dst, GetMode: getter.ModeFile}); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	if _, err := client.Get(t.Context(), &getter.Request{Src: "http://patches/x", Dst: dst + "2", GetMode: getter.ModeFile}); err == nil {
		t.Error("an address of another kind was fetched")
	}
}

// TestTokensByHTTPS: a registry that is asked by https names a server for tokens
// that is not. The password does not go there.
func TestTokensByHTTPS(t *testing.T) {
	t.Parallel()
	var got atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer tokens.Close()
	v := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", `Bearer realm="`+tokens.URL+`",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer v.Close()
	at, err := parseAddress(withUser("oci://"+v.Listener.Addr().String()+"/live", "fother", password))
	if err != nil {
		t.Fatal(err)
	}
	at.plain = false
	a, err := newArtifacts(at)
	if err != nil {
		t.Fatal(err)
	}
	a.careful.RoundTripper = v.Client().Transport
	_, err = a.get(t.Context(), timestampFile, maxTimestamp)
	if err == nil || !strings.Contains(err.Error(), tokens.URL) || strings.Contains(err.Error(), password) {
		t.Errorf("an error that names the other server: %v", err)
	}
	if n := got.Load(); n != 0 {
		t.Errorf("the server for tokens was asked %d times", n)
	}
}
