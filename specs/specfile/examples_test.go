package specfile_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
)

// makeNamed makes in dir the files that a spec names, and the folder that is
// its source.
func makeNamed(t *testing.T, dir string, data []byte) {
	t.Helper()
	var named struct {
		Source  string
		Patches []string
	}
	if err := yaml.Unmarshal(data, &named); err != nil {
		t.Fatal(err)
	}
	files := named.Patches
	if s := named.Source; strings.Contains(s, ".tar") && specs.AddressScheme(s) == "" {
		files = append(files, s)
	} else if err := os.MkdirAll(filepath.Join(dir, s), 0o755); err != nil && specs.AddressScheme(s) == "" {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExamples: what users copy is right, for the parser and for the editor,
// and shows every key.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	shown := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := bytes.Cut(data, []byte("\n")); string(first) != "# yaml-language-server: $schema="+specfile.SchemaID {
			t.Errorf("%s: does not begin with the line by which editors find the schema", file)
		}
		dir := t.TempDir()
		makeNamed(t, dir, data)
		if _, err := specfile.Parse(file, dir, data); err != nil {
			t.Error(err)
		}
		if err := validate(t, data); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		var keys map[string]any
		if err := yaml.Unmarshal(data, &keys); err != nil {
			t.Fatal(err)
		}
		for key := range keys {
			shown[key] = true
		}
	}
	for _, key := range knownKeys(t, "qqqqqqqqqq: x\n") {
		if !shown[key] {
			t.Errorf("no example shows %q", key)
		}
	}
}
