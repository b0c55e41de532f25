package registry

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
)

// goodListing returns a listing of n releases as their values, to be spoilt.
func goodListing(t testing.TB, n int) *listing {
	t.Helper()
	l := &listing{Format: listingFormat}
	for i := range n {
		r := newRelease(fmt.Sprintf("package-%d", i), 3, buildID(i))
		rel, err := r.describe()
		if err != nil {
			t.Fatal(err)
		}
		rel.Length = 123456
		l.Releases = append(l.Releases, rel)
	}
	return l
}

func TestHostileListing(t *testing.T) {
	names := []string{"", ".", "..", "../x", "a/b", `a\b`, "/etc/passwd", ".hidden", "-x", "x\n", "x\x00", "ä", "a b", "%2e%2e", "a?b", "a#b", "a//b", strings.Repeat("x", 201)}
	bad := map[string]func(r *release){
		"series":         func(r *release) { r.Series = "../x" },
		"no series":      func(r *release) { r.Series = "" },
		"level 0":        func(r *release) { r.Level = 0 },
		"no length":      func(r *release) { r.Length = 0 },
		"negative":       func(r *release) { r.Length = -1 },
		"huge":           func(r *release) { r.Length = MaxBundle + 1 },
		"no build-id":    func(r *release) { r.BuildIDs = nil },
		"upper case":     func(r *release) { r.BuildIDs = []specs.BuildID{"ABCD"} },
		"odd build-id":   func(r *release) { r.BuildIDs = []specs.BuildID{"abc"} },
		"build-id twice": func(r *release) { r.BuildIDs = append(r.BuildIDs, r.BuildIDs[0]) },
		"many build-ids": func(r *release) { r.BuildIDs = make([]specs.BuildID, maxReleaseIDs+1) },
		"many CVEs":      func(r *release) { r.CVEs = slices.Repeat([]string{"CVE-1"}, maxReleaseCVEs+1) },
		"bad CVE":        func(r *release) { r.CVEs = []string{"\x1b[2J"} },
	}
	for _, name := range names {
		bad[fmt.Sprintf("package %q", name)] = func(r *release) { r.Package = name }
		bad[fmt.Sprintf("file %q", name)] = func(r *release) { r.File = name }
	}
	for name, spoil := range bad {
		l := goodListing(t, 2)
		if data, err := l.encode(); err != nil {
			t.Fatal(err)
		} else if _, err := parseListing(data); err != nil {
			t.Fatal(err)
		}
		spoil(l.Releases[1])
		data, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseListing(data); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, text := range []string{"", "null", "[]", "{}", `{"format":3,"releases":[]}`, `{"format":1,"releases":[null]}`, `{"format":1,"releases":[]}x`, `{"format":1,"releases":[]}{}`, strings.Repeat("[", 1<<20)} {
		if _, err := parseListing([]byte(text)); err == nil {
			t.Errorf("%.60q: taken", text)
		}
	}
	if l, err := parseListing([]byte(`{"format":1,"releases":[],"later":{"x":1}}`)); err != nil || len(l.Releases) != 0 {
		t.Errorf("a field of later versions: %v", err)
	}
}

// FuzzListing: whatever is taken holds to the bounds, and is written as it was
// read.
func FuzzListing(f *testing.F) {
	data, err := goodListing(f, 3).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"format":1,"releases":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseListing(data)
		if err != nil {
			return
		}
		for _, r := range l.Releases {
			for _, id := range r.BuildIDs {
				e := r.entry(id, nil)
				if path.Clean(e.Path) != e.Path || !strings.HasPrefix(e.Path, bundlesDir+"/"+e.Digest.String()+"/") || strings.Count(e.Path, "/") != 2 {
					t.Errorf("path %q", e.Path)
				}
			}
		}
		again, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseListing(again); err != nil {
			t.Errorf("written as %s: %v", again, err)
		}
	})
}

// FuzzSignature: nothing but the package's key makes a signature.
func FuzzSignature(f *testing.F) {
	key := newTestKey(f)
	r := newRelease("alpha", 1, buildID(1))
	rel, err := r.describe()
	if err != nil {
		f.Fatal(err)
	}
	sig, err := signRelease(f.Context(), rel, []signer{key})
	if err != nil {
		f.Fatal(err)
	}
	pub, err := key.public()
	if err != nil {
		f.Fatal(err)
	}
	e := rel.entry(buildID(1), &binding{Keys: []publicKey{pub}})
	if err := verifyRelease(sig, &e); err != nil {
		f.Fatal(err)
	}
	var good envelope
	if err := json.Unmarshal(sig, &good); err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Fuzz(func(t *testing.T, data []byte) {
		var env envelope
		if verifyRelease(data, &e) == nil && (json.Unmarshal(data, &env) != nil || string(env.Payload) != string(good.Payload)) {
			t.Errorf("taken for signed: %q", data)
		}
	})
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"/a/b":                     "file:///a/b",
		"/a//b/../c/":              "file:///a/c",
		"/a b/%41?c#d":             "file:///a%20b/%2541%3Fc%23d",
		"file:///a/b/":             "file:///a/b",
		"file://localhost/a":       "file:///a",
		"http://host:8/x//y":       "http://host:8/x/y",
		"https://user:p@host/":     "https://user:p@host/",
		"http://[::1]:80/a/../..b": "http://[::1]:80/..b",
	} {
		if u, err := parseAddress(address); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", address, u, err, want)
		}
	}
}
