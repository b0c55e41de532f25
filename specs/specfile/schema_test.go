package specfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

const schemaFile = "../spec.schema.json"

var update = flag.Bool("update", false, "write the schema's file")

// TestSchemaFile: editors use the file, so it is what the code says.
func TestSchemaFile(t *testing.T) {
	want := specfile.Schema()
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what Schema returns; go test ./specs/specfile -run TestSchemaFile -update writes it", schemaFile)
	}
}

// yamlKeys are the keys of a Go type's fields that are not merely their names
// in lower case. Where two fields have one key, it depends on the value which
// of them is set.
var yamlKeys = map[string]string{"Dir": "source", "Archive": "source", "NextCall": "next-call"}

func goKeys(typ reflect.Type) []string {
	keys := map[string]bool{}
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		key, ok := yamlKeys[name]
		if !ok {
			key = strings.ToLower(name)
		}
		keys[key] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// knownKeys asks the parser for its keys, by one that it does not know.
func knownKeys(t *testing.T, in string) []string {
	t.Helper()
	_, err := specfile.Parse("x", folder(t), []byte(in))
	var list *specfile.Error
	if !errors.As(err, &list) {
		t.Fatal(err)
	}
	for _, p := range list.Problems {
		if _, all, ok := strings.Cut(p.Text, ": want one of "); ok {
			return slices.Sorted(slices.Values(strings.Split(all, ", ")))
		}
	}
	t.Fatalf("no keys in %v", err)
	return nil
}

// TestSchemaKeys: whoever adds a field adds a key, with its schema, its parser
// and its place in Format.
func TestSchemaKeys(t *testing.T) {
	type object struct {
		Description string
		Properties  map[string]*object
		OneOf       []*object
		Items       *object
	}
	var schema object
	if err := json.Unmarshal(specfile.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	inner := schema.Properties["consistency"].OneOf[1].Properties
	for _, test := range []struct {
		name       string
		typ        reflect.Type
		properties map[string]*object
		parser     []string
	}{
		{"Spec", reflect.TypeFor[specs.Spec](), schema.Properties, knownKeys(t, "qqqqqqqqqq: x\n")},
		{"Consistency", reflect.TypeFor[specs.Consistency](), inner, knownKeys(t, "consistency: {qqqqqqqqqqqq: x}\n")},
		{"Allowance", reflect.TypeFor[specs.Allowance](), schema.Properties["allow"].Items.Properties, knownKeys(t, "allow: [{qqqqqqqqqqqq: x}]\n")},
	} {
		want := goKeys(test.typ)
		if got := slices.Sorted(maps.Keys(test.properties)); !slices.Equal(got, want) {
			t.Errorf("%s: the schema has %v, the type %v", test.name, got, want)
		}
		if !slices.Equal(test.parser, want) {
			t.Errorf("%s: the parser has %v, the type %v", test.name, test.parser, want)
		}
		for key, p := range test.properties {
			if len(p.Description) < 15 {
				t.Errorf("%s: %s has no description", test.name, key)
			}
		}
	}
}

// TestEveryField: the specs of the round trip set each field, so that none can
// be forgotten by Format.
func TestEveryField(t *testing.T) {
	dir := folder(t)
	unset := map[string]bool{}
	for i := range reflect.TypeFor[specs.Spec]().NumField() {
		unset[reflect.TypeFor[specs.Spec]().Field(i).Name] = true
	}
	for _, in := range roundTrips {
		s, err := specfile.Parse("x", dir, []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		for name := range unset {
			if !reflect.ValueOf(s).FieldByName(name).IsZero() {
				delete(unset, name)
			}
		}
	}
	if len(unset) > 0 {
		t.Errorf("no spec sets %v", slices.Sorted(maps.Keys(unset)))
	}
}

// compiled is the schema as a validator has it.
var compiled = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(specfile.Schema()))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(specfile.SchemaID, doc); err != nil {
		return nil, err
	}
	return c.Compile(specfile.SchemaID) // checked against that of schemas, too
})

// validate checks a spec as an editor does.
func validate(t testing.TB, data []byte) error {
	t.Helper()
	schema, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	if len(doc.Content) == 0 {
		return errors.New("empty")
	}
	value, err := plainValue(doc.Content[0])
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// plainValue is what JSON would have in the place of n.
func plainValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plainValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			v, err := plainValue(e)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return scalarValue(n), nil
	}
	return nil, fmt.Errorf("line %d: no such thing in JSON", n.Line)
}

func scalarValue(n *yaml.Node) any {
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return true
	case "!!int":
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			return json.Number(n.Value)
		}
		return 0.5 // another notation: a number, but not one that a level can be
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
		return 0.5
	}
	return n.Value
}

// TestSchemaRefuses: what is a mistake in form, an editor marks.
func TestSchemaRefuses(t *testing.T) {
	const good = "name: n\npatches: [a.patch]\n"
	for _, in := range append(roundTrips, good) {
		if err := validate(t, []byte(in)); err != nil {
			t.Errorf("%v\n%s", err, in)
		}
	}
	for _, in := range []string{
		"name: n\n", "patches: [a]\n", "[]", "name: a/b\npatches: [a]\n", "name: 12\npatches: [a]\n", "name: n\npatches: a\n", "name: n\npatches: []\n",
		good + "lvel: 1\n", good + "level: 0\n", good + "level: 4294967296\n", good + "level: one\n", good + "level: 1.5\n",
		good + "build: []\n", good + "build: make\n", good + "build: [\"\"]\n", good + "install: [[x]]\n", good + "configure: [1]\n",
		good + "env: [A]\n", good + "env: {A-B: x}\n", good + "env: {COMPILER_PATH: x}\n", good + "env: {DESTDIR: x}\n", good + "env: {A: }\n",
		good + "targets: [/a]\n", good + "targets: [..]\n", good + "targets: [../a]\n", good + "targets: [a, a]\n",
		good + "cves: [CVE-1]\n", good + "series: -x\n", good + "description:\n",
		good + "checksum: sha256:00\n", good + "checksum: md5:00\n", good + "source: https://h/a.tgz\n", good + "source: [a]\n",
		good + "consistency: srict\n", good + "consistency: {next-call: [f]}\n", good + "consistency: {next-call: [], reason: r}\n",
		good + "consistency: {next-call: [f], reason: r, x: y}\n", good + "consistency: {next-call: [\"f()\"], reason: r}\n",
	} {
		if err := validate(t, []byte(in)); err == nil {
			t.Errorf("accepted:\n%s", in)
		}
	}
}
