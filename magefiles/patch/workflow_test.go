package patch

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"gopkg.in/yaml.v3"
)

// workflow is what the tests read of a workflow file.
type workflow struct {
	Name string
	On   any
	Jobs map[string]struct {
		Steps []struct {
			Uses, Run string
			With      map[string]any
		}
	}
}

var called = regexp.MustCompile(`go tool mage ([a-z]+(?::[a-z]+)?)`)

// TestWorkflows: the workflow files call targets that are there, and files that
// are in the repository.
func TestWorkflows(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: builds a magefile")
	}
	files, err := filepath.Glob("../../.github/workflows/*.yml")
	if err != nil || len(files) < 2 {
		t.Fatalf("workflows %q: %v", files, err)
	}
	list := newModule(t).mage(0, "-l")
	seen := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var w workflow
		if err := yaml.Unmarshal(data, &w); err != nil || w.Name == "" || w.On == nil || len(w.Jobs) == 0 {
			t.Errorf("%s: not a workflow: %v", file, err)
		}
		for _, job := range w.Jobs {
			for _, step := range job.Steps {
				if (step.Uses == "") == (step.Run == "") {
					t.Errorf("%s: a step has to use or to run something: %+v", file, step)
				}
				for _, m := range called.FindAllStringSubmatch(step.Run, -1) {
					seen[m[1]] = true
					if !regexp.MustCompile(`(?m)^ +` + m[1] + ` `).MatchString(list) {
						t.Errorf("%s: there is no target %s", file, m[1])
					}
				}
				if path := regexp.MustCompile(`^\.ci/\S+$`).FindString(step.Run); path != "" {
					seen[path] = true
					if info, err := os.Stat(filepath.Join("../..", path)); err != nil || info.Mode()&0o111 == 0 {
						t.Errorf("%s: %s cannot be run: %v", file, path, err)
					}
				}
			}
		}
	}
	for _, want := range []string{".ci/run", "patch:all", "patch:publish", "registry:refresh"} {
		if !seen[want] {
			t.Errorf("no workflow runs %s", want)
		}
	}
}
