package specfile

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

// archiveSuffixes are the endings of names of archives.
var archiveSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip"}

func isArchive(name string) bool {
	return slices.ContainsFunc(archiveSuffixes, func(s string) bool { return len(name) > len(s) && strings.HasSuffix(name, s) })
}

// origin puts the source and its checksum into s.
func (p *parser) origin(s *specs.Spec) {
	source := ""
	if p.source != nil {
		if source = p.str(p.source, "a folder, an archive or an address"); source == "" {
			return
		}
	}
	sum, ok := p.sum()
	if !ok {
		return
	}
	if specs.AddressScheme(source) != "" {
		p.address(s, source, sum)
		return
	}
	p.local(s, source, sum)
}

// sum returns the value of the key checksum, "" if there is none.
func (p *parser) sum() (sum string, ok bool) {
	if p.checksum == nil {
		return "", true
	}
	if sum = p.str(p.checksum, "a checksum"); sum == "" {
		return "", false
	}
	algorithm, _, found := strings.Cut(sum, ":")
	if found && !slices.Contains(specs.ChecksumAlgorithms, algorithm) {
		word := *p.checksum
		word.Value = algorithm
		p.unknown(&word, "algorithm", specs.ChecksumAlgorithms)
		return "", false
	}
	c, err := specs.ParseChecksum(sum)
	if err != nil {
		p.problem(p.checksum, "%v", err)
	}
	return c.String(), err == nil
}

// address puts an address into s.
func (p *parser) address(s *specs.Spec, address, sum string) {
	word := *p.source
	if word.Value = specs.AddressScheme(address); !slices.Contains(specs.Schemes, word.Value) {
		p.unknown(&word, "scheme", specs.Schemes)
		return
	}
	origin, err := specs.ParseOrigin(address, sum)
	if err != nil {
		place := p.source
		if p.checksum != nil && errors.Is(err, specs.ErrChecksum) {
			place = p.checksum
		}
		p.problem(place, "%v", err)
		return
	}
	s.Archive, s.Checksum = origin.String(), origin.Checksum.String()
}

// local puts a folder or an archive of this machine into s.
func (p *parser) local(s *specs.Spec, source, sum string) {
	path := p.dir
	if source != "" {
		if host, _, _ := strings.Cut(source, "/"); strings.Contains(host, ".") && !p.exists(source) {
			p.problem(p.source, "path %q: no such file or folder; an address begins with one of https://, git::https://", source)
			return
		}
		if path = p.path(p.source, wantTree); path == "" {
			return
		}
	}
	info, err := os.Stat(path)
	switch {
	case err != nil || !info.IsDir():
		s.Archive, s.Checksum = path, sum
		if strings.HasPrefix(sum, specs.ChecksumGit+":") {
			p.problem(p.checksum, "checksum git: an archive has none: want sha256:HEX")
		}
	case sum != "":
		p.problem(p.checksum, "checksum of a folder: want none, or an archive or address as source")
	default:
		s.Dir = path
	}
}

func (p *parser) exists(path string) bool {
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.dir, path)
	}
	_, err := os.Lstat(path)
	return err == nil
}

// The keys of a consistency that is not strict.
const (
	nextCallKey = "next-call"
	reasonKey   = "reason"
	strict      = "strict"
)

// consistency reads "strict", or a mapping of functions and a reason.
func (p *parser) consistency(n *yaml.Node) (c specs.Consistency) {
	const want = "strict, or a mapping such as {next-call: [worker_loop], reason: why}"
	if n.Kind != yaml.MappingNode {
		if s := p.str(n, want); s != "" && s != strict {
			p.unknownConsistency(n)
		}
		return c
	}
	known := []string{nextCallKey, reasonKey}
	missing := map[string]bool{nextCallKey: true, reasonKey: true}
	p.pairs(n, func(key, value *yaml.Node) {
		delete(missing, key.Value)
		switch {
		case !slices.Contains(known, key.Value):
			p.unknown(key, "key", known)
		case !p.plain(value):
		case key.Value == nextCallKey:
			c.NextCall = unique(p, value, p.list(value, "functions", 1, p.function))
		case key.Value == reasonKey:
			c.Reason = p.text(value)
		}
	})
	for _, key := range known {
		if missing[key] {
			p.problem(n, "%q is missing", key)
		}
	}
	return c
}

// unknownConsistency reports a word in the place of strict. The other words are
// keys of a mapping and would not do alone.
func (p *parser) unknownConsistency(n *yaml.Node) {
	switch near := nearest(strings.ToLower(n.Value), []string{strict, nextCallKey}); near {
	case strict:
		p.problem(n, "unknown consistency %q: did you mean %q?", n.Value, near)
	case nextCallKey:
		p.problem(n, "consistency next-call: want the functions and a reason, {next-call: [worker_loop], reason: why}")
	default:
		p.problem(n, "unknown consistency %.100q: want strict, or a mapping with %s and %s", n.Value, nextCallKey, reasonKey)
	}
}

// function reads the name of a function as the linker knows it.
func (p *parser) function(n *yaml.Node) string {
	s := p.str(n, "the name of a function")
	if s != "" && !functionPattern.MatchString(s) {
		p.problem(n, "function %.100q: want a symbol as nm prints it, for C++ the mangled one", s)
	}
	return s
}
