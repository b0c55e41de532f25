package specfile

import (
	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

// A field is one key of a spec.
type field struct {
	key      string
	required bool
	schema   *node
	// set reads the value n into s.
	set func(p *parser, s *specs.Spec, n *yaml.Node)
}

// fields are all keys in the order in which Format writes them.
var fields = []field{
	{"name", true, nameSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Name = p.name(n) }},
	{"description", false, descriptionSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Description = p.text(n) }},
	{"source", false, sourceSchema, func(p *parser, _ *specs.Spec, n *yaml.Node) { p.source = n }},
	{"checksum", false, checksumSchema, func(p *parser, _ *specs.Spec, n *yaml.Node) { p.checksum = n }},
	{"patches", true, patchesSchema, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.Patches = p.list(n, "patches", 1, func(n *yaml.Node) string { return p.path(n, wantFile) })
	}},
	{"configure", false, configureSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Configure = p.list(n, "shell commands", 0, p.command) }},
	{"build", false, buildSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Build = p.list(n, "shell commands", 1, p.command) }},
	{"install", false, installSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Install = p.list(n, "shell commands", 0, p.command) }},
	{"env", false, envSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Env = p.env(n) }},
	{"targets", false, targetsSchema, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.Targets = unique(p, n, p.list(n, "targets", 0, p.target))
	}},
	{"series", false, seriesSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Series = p.series(n) }},
	{"level", false, levelSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Level = p.level(n) }},
	{"cves", false, cvesSchema, func(p *parser, s *specs.Spec, n *yaml.Node) {
		s.CVEs = unique(p, n, p.list(n, "CVE numbers", 0, p.cve))
	}},
	{"consistency", false, consistencySchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Consistency = p.consistency(n) }},
	{"allow", false, allowSchema, func(p *parser, s *specs.Spec, n *yaml.Node) { s.Allow = p.allow(n) }},
}

// keys are the known keys, in the order of fields.
var keys = func() (all []string) {
	for _, f := range fields {
		all = append(all, f.key)
	}
	return all
}()
