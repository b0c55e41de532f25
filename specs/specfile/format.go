package specfile

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

// Format returns s as YAML. Paths inside dir are written relative to it, others
// as they are; Parse with the same dir gives s again if s is what Parse can
// return.
func Format(s specs.Spec, dir string) ([]byte, error) {
	root := &yaml.Node{Kind: yaml.MappingNode}
	put := func(key string, value *yaml.Node) {
		root.Content = append(root.Content, scalar(key), value)
	}
	list := func(key string, all []string) {
		if len(all) > 0 {
			put(key, sequence(all))
		}
	}
	put("name", scalar(s.Name))
	if s.Description != "" {
		put("description", scalar(s.Description))
	}
	put("source", scalar(source(s, dir)))
	if s.Checksum != "" {
		put("checksum", scalar(s.Checksum))
	}
	patches := make([]string, len(s.Patches))
	for i, p := range s.Patches {
		patches[i] = shorten(p, dir)
	}
	list("patches", patches)
	list("configure", s.Configure)
	list("build", s.Build)
	list("install", s.Install)
	if len(s.Env) > 0 {
		put("env", mapping(s.Env))
	}
	list("targets", s.Targets)
	put("series", scalar(string(s.Series)))
	put("level", &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.FormatUint(uint64(s.Level), 10)})
	list("cves", s.CVEs)
	if c := s.Consistency; len(c.NextCall) > 0 {
		put("consistency", &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			scalar(nextCallKey), sequence(c.NextCall), scalar(reasonKey), scalar(c.Reason),
		}})
	}
	if len(s.Allow) > 0 {
		put("allow", allowances(s.Allow))
	}

	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func scalar(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}

func sequence(all []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range all {
		n.Content = append(n.Content, scalar(s))
	}
	return n
}

func allowances(all []specs.Allowance) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode}
	for _, a := range all {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			scalar(changeKey), scalar(a.Change), scalar(reasonKey), scalar(a.Reason),
		}})
	}
	return n
}

// mapping makes a mapping of KEY=VALUE pairs.
func mapping(env []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		n.Content = append(n.Content, scalar(key), scalar(value))
	}
	return n
}

// source returns the value of the key of that name.
func source(s specs.Spec, dir string) string {
	switch {
	case s.Archive == "":
		return shorten(s.Dir, dir)
	case specs.AddressScheme(s.Archive) != "":
		return s.Archive
	}
	return shorten(s.Archive, dir)
}

// shorten returns path relative to dir if it lies in it.
func shorten(path, dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(abs, path); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return path
}
