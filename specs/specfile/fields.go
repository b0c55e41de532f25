package specfile

import (
	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

// A field is one key of a spec.
type field struct {
	key      string
	required bool
	// set reads the value n into s.
	set func(p *parser, s *specs.Spec, n *yaml.Node)
}

// fields are all keys in the order in which Format writes them.
var fields = []field{
	{"name", true, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Name = p.name(n) }},
	{"description", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Description = p.text(n) }},
	{"source", false, func(p *parser, _ *specs.Spec, n *yaml.Node) { p.source = n }},
	{"checksum", false, func(p *parser, _ *specs.Spec, n *yaml.Node) { p.checksum = n }},
	{"patches", true, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.Patches = p.list(n, "patches", 1, func(n *yaml.Node) string { return p.path(n, wantFile) })
	}},
	{"configure", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Configure = p.list(n, "shell commands", 0, p.command) }},
	{"build", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Build = p.list(n, "shell commands", 1, p.command) }},
	{"install", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Install = p.list(n, "shell commands", 0, p.command) }},
	{"env", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Env = p.env(n) }},
	{"targets", false, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.Targets = unique(p, n, p.list(n, "targets", 0, p.target))
	}},
	{"series", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Series = p.series(n) }},
	{"level", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Level = p.level(n) }},
	{"cves", false, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.CVEs = unique(p, n, p.list(n, "CVE numbers", 0, p.cve))
	}},
	{"consistency", false, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Consistency = p.consistency(n) }},
}

// keys are the known keys, in the order of fields.
var keys = func() (all []string) {
	for _, f := range fields {
		all = append(all, f.key)
	}
	return all
}()
