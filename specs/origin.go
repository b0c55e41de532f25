package specs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The algorithms of checksums. ChecksumGit is for trees that come from a git
// repository: the hash is that of the commit, which covers the whole tree.
const (
	ChecksumSHA256 = "sha256"
	ChecksumSHA512 = "sha512"
	ChecksumGit    = "git"
)

// ChecksumAlgorithms are the known algorithms, the usual one first.
var ChecksumAlgorithms = []string{ChecksumSHA256, ChecksumSHA512, ChecksumGit}

// checksumDigits are the possible numbers of hexadecimal digits. A git commit
// has 40, or 64 in repositories that use SHA-256.
var checksumDigits = map[string][]int{
	ChecksumSHA256: {64},
	ChecksumSHA512: {128},
	ChecksumGit:    {40, 64},
}

// ErrChecksum says that a checksum is not of the kind that a source has, or
// does not agree with another.
var ErrChecksum = errors.New("checksum")

// Checksum is what a source must be: the hash of an archive, or the commit of
// a git tree. The zero value is none.
type Checksum struct {
	Algorithm string // one of ChecksumAlgorithms
	Digits    string // hexadecimal, lower case
}

func (c Checksum) String() string {
	if c == (Checksum{}) {
		return ""
	}
	return c.Algorithm + ":" + c.Digits
}

// ParseChecksum reads a checksum of the form ALGORITHM:HEX.
func ParseChecksum(s string) (Checksum, error) {
	algorithm, digits, _ := strings.Cut(s, ":")
	want, known := checksumDigits[algorithm]
	if !known {
		return Checksum{}, fmt.Errorf("checksum %.200q: want ALGORITHM:HEX with one of %s", s, strings.Join(ChecksumAlgorithms, ", "))
	}
	if !slices.Contains(want, len(digits)) {
		return Checksum{}, fmt.Errorf("checksum of %d digits: want %s after %q", len(digits), numbers(want), algorithm+":")
	}
	if _, err := hex.DecodeString(digits); err != nil {
		return Checksum{}, fmt.Errorf("checksum %s: want hexadecimal digits", s)
	}
	return Checksum{algorithm, strings.ToLower(digits)}, nil
}

func numbers(all []int) string {
	return strings.Join(strings.Fields(strings.Trim(fmt.Sprint(all), "[]")), " or ")
}

// Schemes are the known schemes of addresses, and GitSchemes those that may
// follow "git::".
var (
	Schemes    = []string{"https", "http", "file", "git"}
	GitSchemes = []string{"https", "ssh", "http", "git", "file"}
)

// addressPattern matches what a path never begins with: a scheme, or the way
// to fetch that is forced by two colons. It captures the word.
var addressPattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*):(//|:)`)

// AddressScheme returns the word before the first "://" or "::" of an address,
// or "" if source is a path.
func AddressScheme(source string) string {
	if m := addressPattern.FindStringSubmatch(source); m != nil {
		return m[1]
	}
	return ""
}

// Origin is a place from which a source tree is fetched.
type Origin struct {
	// Git is set if URL is a git repository, otherwise it is an archive.
	Git bool
	// URL is the address without what is meant for us: "git::", ref and
	// checksum.
	URL string
	// Ref is the branch, tag or commit of a git repository.
	Ref string
	// Checksum is never zero, except for archives on this machine.
	Checksum Checksum
}

// String returns the origin as an address, without its checksum.
func (o Origin) String() string {
	if !o.Git {
		return o.URL
	}
	s := "git::" + o.URL
	if o.Ref != "" {
		s += "?ref=" + o.Ref
	}
	return s
}

// ParseOrigin reads an address in the notation of go-getter: an archive at
// https://, http:// or file://, or a repository at git::URL?ref=REF. The
// checksum may be given apart, in the address as ?checksum=, or for git by a
// full commit id as ref; where there are several, they must agree
// ([ErrChecksum]). An address of another machine needs one.
func ParseOrigin(address, checksum string) (Origin, error) {
	rest, git := strings.CutPrefix(address, "git::")
	u, err := parseURL(rest, git)
	if err != nil {
		return Origin{}, fmt.Errorf("address %.200q: %w", address, err)
	}
	o := Origin{Git: git}
	if o.Checksum, err = parseOptional(checksum); err != nil {
		return Origin{}, err
	}
	inside, err := o.takeQuery(u)
	if err != nil {
		return Origin{}, fmt.Errorf("address %.200q: %w", address, err)
	}
	if err := o.agree(inside); err != nil {
		return Origin{}, err
	}
	o.URL = u.String()
	if o.Checksum == (Checksum{}) && (git || u.Scheme != "file") {
		return Origin{}, o.missing()
	}
	return o, nil
}

func parseOptional(checksum string) (Checksum, error) {
	if checksum == "" {
		return Checksum{}, nil
	}
	return ParseChecksum(checksum)
}

// parseURL reads a URL and refuses what would mean something else to the
// programs that it is handed to.
func parseURL(s string, git bool) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err
		}
		if git && !strings.Contains(s, "://") {
			return nil, errors.New("want a URL after git::, such as git::ssh://git@host/path")
		}
		return nil, err
	}
	known := slices.DeleteFunc(slices.Clone(Schemes), func(s string) bool { return s == "git" })
	if git {
		known = GitSchemes
	}
	_, password := u.User.Password()
	switch {
	case !slices.Contains(known, u.Scheme):
		return nil, fmt.Errorf("scheme %q: want one of %s", u.Scheme, strings.Join(known, ", "))
	case !strings.HasPrefix(s, u.Scheme+"://") || u.Fragment != "":
		return nil, errors.New("want a URL of the form SCHEME://HOST/PATH")
	case password:
		return nil, errors.New("want no password in it: use ~/.netrc or a credential helper of git")
	case u.Scheme == "file" && u.Host != "":
		return nil, errors.New("want three slashes, file:///PATH, and an absolute path")
	case u.Scheme != "file" && (u.Hostname() == "" || u.Hostname()[0] == '-'):
		return nil, errors.New("want the name of a host")
	case path.Clean("/"+u.Path) == "/":
		return nil, errors.New("want a path after the host")
	case strings.Contains(u.Path, "//"):
		return nil, errors.New("// in the path stands for a part of the tree: want the whole, and commands that change to a folder of it")
	}
	return u, nil
}

// refPattern is what a ref may be; git knows more, but no option of a command
// looks like it.
var refPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+-]*$`)

// takeQuery removes from u the parameters that are for us. It returns the
// checksum among them.
func (o *Origin) takeQuery(u *url.URL) (Checksum, error) {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Checksum{}, err
	}
	// The others stay as they are: a signed URL depends on every byte.
	u.RawQuery = strings.Join(slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(p string) bool {
		key, _, _ := strings.Cut(p, "=")
		key, _ = url.QueryUnescape(key)
		return key == "checksum" || o.Git && key == "ref"
	}), "&")
	u.ForceQuery = false
	if o.Git && u.RawQuery != "" {
		return Checksum{}, fmt.Errorf("parameters %q: git knows ref and checksum", u.RawQuery)
	}
	if len(query["checksum"]) > 1 || o.Git && len(query["ref"]) > 1 {
		return Checksum{}, errors.New("a parameter is there twice")
	}
	if o.Git {
		o.Ref = query.Get("ref")
		if o.Ref != "" && !refPattern.MatchString(o.Ref) || strings.Contains(o.Ref, "..") {
			return Checksum{}, fmt.Errorf("ref %q: want a branch, tag or commit", o.Ref)
		}
	}
	return parseOptional(query.Get("checksum"))
}

// agree joins the checksums that were given in several ways.
func (o *Origin) agree(inside Checksum) error {
	all := []Checksum{o.Checksum, inside}
	if o.Git {
		commit, _ := ParseChecksum(ChecksumGit + ":" + o.Ref)
		all = append(all, commit) // zero if the ref is a name
	}
	o.Checksum = Checksum{}
	for _, c := range all {
		switch {
		case c == (Checksum{}):
		case o.Git != (c.Algorithm == ChecksumGit):
			if o.Git {
				return fmt.Errorf("%w %s: a git tree is checked by its commit: want git:HEX, or the full commit id as ref", ErrChecksum, c.Algorithm)
			}
			return fmt.Errorf("%w git: an archive has none: want sha256:HEX", ErrChecksum)
		case o.Checksum == (Checksum{}):
			o.Checksum = c
		case o.Checksum != c:
			return fmt.Errorf("%w %s does not agree with %s in the address", ErrChecksum, o.Checksum, c)
		}
	}
	return nil
}

func (o *Origin) missing() error {
	if o.Git && o.Ref != "" {
		return fmt.Errorf("checksum is missing: ref %s can be moved: want the full commit id as ref, or checksum: git:HEX", o.Ref)
	}
	if o.Git {
		return errors.New("checksum is missing: want ?ref= with the full commit id, or checksum: git:HEX")
	}
	return errors.New("checksum is missing: an address needs one, checksum: sha256:HEX as sha256sum prints it")
}
