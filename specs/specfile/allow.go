package specfile

import (
	"regexp"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

const changeKey = "change"

// changePattern is how refusals name what changed.
var changePattern = regexp.MustCompile(`^((struct|union|class|enum|typedef|enumerator|variable|fresh variable|constant|function) \S[^\n]*|` + specs.NoDebugData + `)$`)

var allowSchema = &node{
	Type: "array", MaxItems: maxEntries,
	Description: "Changes of types, variables and signatures that are refused unless they are named here: what a running program has in memory keeps its old form. So are functions that are gone and tables of functions that changed, to which a running program may have pointers. A fresh variable is one that the patch brings and that begins anew, where a lower level of the series that is applied has it too; others go on with the value they have. No debug data stands for units of which they cannot be compared.",
	Examples:    []any{[]any{map[string]string{changeKey: "struct conn", reasonKey: "the new field is last, and only code that the patch brings uses it"}}},
	Items: &node{
		Type: "object", AdditionalProperties: false, Required: []string{changeKey, reasonKey},
		Properties: map[string]*node{
			changeKey: {Type: "string", Pattern: changePattern.String(), Description: "What the refusal names, such as struct conn, variable limit, fresh variable retries, function parse or no debug data."},
			reasonKey: {Type: "string", Pattern: filled, Description: "Why that is right. It is kept in the bundle."},
		},
	},
}

// allow reads the changes that are allowed.
func (p *parser) allow(n *yaml.Node) []specs.Allowance {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxEntries {
		p.problem(n, "want a list of at most %d changes, such as [{change: struct conn, reason: why}]", maxEntries)
		return nil
	}
	var all []specs.Allowance
	for _, e := range n.Content {
		if !p.plain(e) {
			continue
		}
		a := p.allowance(e)
		if a.Change != "" && slices.ContainsFunc(all, func(o specs.Allowance) bool { return o.Change == a.Change }) {
			p.problem(e, "%q is in the list already", a.Change)
		}
		all = append(all, a)
	}
	return all
}

func (p *parser) allowance(n *yaml.Node) (a specs.Allowance) {
	if n.Kind != yaml.MappingNode {
		p.problem(n, "want a mapping such as {change: struct conn, reason: why}")
		return a
	}
	known := []string{changeKey, reasonKey}
	missing := map[string]bool{changeKey: true, reasonKey: true}
	p.pairs(n, func(key, value *yaml.Node) {
		delete(missing, key.Value)
		switch {
		case !slices.Contains(known, key.Value):
			p.unknown(key, "key", known)
		case !p.plain(value):
		case key.Value == changeKey:
			a.Change = p.text(value)
			if a.Change != "" && !changePattern.MatchString(a.Change) {
				p.problem(value, "change %.100q: want what the refusal names, such as struct conn, variable limit or function parse", a.Change)
			}
		case key.Value == reasonKey:
			a.Reason = p.text(value)
		}
	})
	for _, key := range known {
		if missing[key] {
			p.problem(n, "%q is missing", key)
		}
	}
	return a
}
