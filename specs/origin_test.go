package specs

import (
	"strings"
	"testing"
)

func TestParseChecksum(t *testing.T) {
	for s, want := range map[string]string{
		"sha256:" + strings.Repeat("0aB", 21) + "f": "sha256:" + strings.Repeat("0ab", 21) + "f",
		"sha512:" + strings.Repeat("0", 128):        "sha512:" + strings.Repeat("0", 128),
		"git:" + strings.Repeat("a", 40):            "git:" + strings.Repeat("a", 40),
		"git:" + strings.Repeat("a", 64):            "git:" + strings.Repeat("a", 64),
		"":                                          "",
		"sha256:":                                   "",
		"sha256":                                    "",
		"sha1:" + strings.Repeat("0", 40):           "",
		"SHA256:" + strings.Repeat("0", 64):         "",
		"git:" + strings.Repeat("a", 7):             "",
		"sha256:" + strings.Repeat("g", 64):         "",
		" sha256:" + strings.Repeat("0", 64):        "",
	} {
		got, err := ParseChecksum(s)
		if got.String() != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestAddressScheme(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "a": "", "a/b": "", "./a://b": "", "/a": "", "C:a": "", "://": "",
		"https://h/a": "https", "git::https://h": "git", "git::a": "git", "s3::x": "s3", "file:///a": "file", "HTTPS://h": "HTTPS",
	} {
		if got := AddressScheme(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// FuzzParseOrigin: what is accepted is pinned, means the same when it is read
// again, and holds nothing that a command could take for an option.
func FuzzParseOrigin(f *testing.F) {
	sum, commit := "sha256:"+strings.Repeat("0", 64), "git:"+strings.Repeat("1", 40)
	f.Add("https://h/a.tgz?checksum="+sum+"&x=%2f", "")
	f.Add("git::ssh://git@h:22/a.git?ref=v1", commit)
	f.Add("git::file:///a?ref="+strings.Repeat("1", 40), "")
	f.Add("git::https://h/a?checksum="+commit, commit)
	f.Add("file:///a%20b.tar", "")
	f.Add("file:/%8F", "")
	f.Fuzz(func(t *testing.T, address, checksum string) {
		o, err := ParseOrigin(address, checksum)
		if err != nil {
			return
		}
		if o.Checksum == (Checksum{}) && !strings.HasPrefix(o.URL, "file:///") {
			t.Errorf("not pinned: %+v", o)
		}
		if o.Git != (o.Checksum.Algorithm == ChecksumGit) {
			t.Errorf("a checksum of another kind: %+v", o)
		}
		if strings.HasPrefix(o.URL, "-") || strings.HasPrefix(o.Ref, "-") || strings.Contains(o.URL, "://-") {
			t.Errorf("like an option: %+v", o)
		}
		again, err := ParseOrigin(o.String(), o.Checksum.String())
		if err != nil || again != o {
			t.Errorf("%+v became %+v, %v", o, again, err)
		}
	})
}
