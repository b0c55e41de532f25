package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgentry/go-netrc/netrc"
)

// place is where a registry is. Its URL has no user, no query and no fragment,
// so that it can be shown.
type place struct {
	*url.URL
	user *url.Userinfo // nil if the address has none

	endpoint *url.URL // s3: the server
	region   string   // s3
	plain    bool     // oci: http, not https
}

// schemes are the kinds of stores, with what their addresses may say behind
// the question mark.
var schemes = map[string][]string{
	"file": nil, "http": nil, "https": nil,
	"s3":  {"endpoint", "region"},
	"oci": {"plain-http"},
}

// parseAddress takes a folder's path or an address.
func parseAddress(address string) (*place, error) {
	if !IsAddress(address) {
		abs, err := filepath.Abs(address)
		if err != nil || address == "" {
			return nil, fail(ErrUnreachable, fmt.Sprintf("registry %q", address), "want a folder or an address")
		}
		return &place{URL: &url.URL{Scheme: "file", Path: filepath.ToSlash(abs)}}, nil
	}
	u, err := url.Parse(address)
	if err != nil {
		// The error quotes the address, which may have a password.
		return nil, fail(ErrUnreachable, "registry", "its address cannot be read: is a character in it not escaped?")
	}
	queries, known := schemes[u.Scheme]
	switch {
	case !known:
		return nil, fail(ErrUnreachable, redact(u), "scheme %s: want a folder, file, http, https, s3 or oci", u.Scheme)
	case u.Scheme == "file" && u.Host != "" && u.Host != "localhost", u.Scheme != "file" && u.Host == "":
		return nil, fail(ErrUnreachable, redact(u), "wrong host %q", u.Host)
	case u.Fragment != "" || u.Opaque != "":
		return nil, fail(ErrUnreachable, redact(u), "want an address without fragment")
	}
	for key, values := range u.Query() {
		if !slices.Contains(queries, key) || len(values) != 1 {
			return nil, fail(ErrUnreachable, redact(u), "a %s address has no %q", u.Scheme, key)
		}
	}
	// A double slash would mean a part of an archive to go-getter.
	p := &place{URL: &url.URL{Scheme: u.Scheme, Host: u.Host, Path: path.Clean("/" + u.Path)}, user: u.User}
	return p, p.parseMore(u)
}

// parseMore looks at what only some kinds of stores have.
func (p *place) parseMore(u *url.URL) error {
	switch p.Scheme {
	case "file":
		p.Host = ""
	case "http", "https":
		return p.readNetrc()
	case "s3":
		if p.user != nil {
			return fail(ErrUnreachable, p.String(), "an s3 address has no user: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		return p.parseS3(u.Query())
	case "oci":
		p.plain = u.Query().Get("plain-http") == "true" || loopback(p.Hostname())
	}
	return nil
}

// parseS3 finds server and region: in the address, or in the environment as
// other S3 clients do.
func (p *place) parseS3(query url.Values) error {
	first := func(given string, names ...string) string {
		for _, name := range names {
			if given == "" {
				given = os.Getenv(name)
			}
		}
		return given
	}
	p.region = first(query.Get("region"), "AWS_REGION", "AWS_DEFAULT_REGION")
	if p.region == "" {
		p.region = "us-east-1"
	}
	server := first(query.Get("endpoint"), "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	if server == "" {
		server = "https://s3." + p.region + ".amazonaws.com"
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return fail(ErrUnreachable, p.String(), "endpoint: want http://HOST or https://HOST, with a port if need be")
	}
	p.endpoint = u
	return nil
}

// readNetrc takes user and password from ~/.netrc or $NETRC if the address has
// none (curl(1), "netrc").
func (p *place) readNetrc() error {
	if p.user != nil {
		return nil
	}
	file := os.Getenv("NETRC")
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil
		}
		file = filepath.Join(home, ".netrc")
	}
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	machines, err := netrc.ParseFile(file)
	if err != nil {
		// The error may quote what is a password.
		return fail(ErrDenied, file, "not of netrc's form")
	}
	if m := machines.FindMachine(p.Hostname()); m != nil && m.Login != "" {
		p.user = url.UserPassword(m.Login, m.Password)
	}
	return nil
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	return host == "localhost"
}

// IsAddress tells an address of a registry from the path of a folder.
func IsAddress(registry string) bool { return strings.Contains(registry, "://") }

// Redacted returns a registry's address as it may be shown: without password,
// and a folder with its whole path.
func Redacted(address string) string {
	if !IsAddress(address) {
		if abs, err := filepath.Abs(address); err == nil {
			return abs
		}
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return redact(u)
}

// redact returns an address as it may be shown. A user without a password may be
// a token; what stands behind the question mark may be one in an address that a
// server redirects to.
func redact(u *url.URL) string {
	shown := *u
	if _, has := u.User.Password(); u.User != nil && !has {
		shown.User = url.User("xxxxx")
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		shown.RawQuery = ""
	}
	return shown.Redacted()
}

// hideQuery takes from an error of net/http what may be a token in its address.
func hideQuery(err error) {
	var of *url.Error
	if !errors.As(err, &of) {
		return
	}
	if u, err := url.Parse(of.URL); err == nil {
		of.URL = redact(u)
	}
}
