// Package include holds the C headers that a fix may include: hooks
// (fother.h) and shadow variables (fother_shadow.h) of a live patch. They are for
// the patched build only; the original's does not know them.
package include

import (
	"embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed *.h
var headers embed.FS

// Environ writes the headers to a folder, which is made if it is missing, and
// returns env with what has gcc and clang find them there, after all folders
// that a build names itself. Source: gcc(1), "ENVIRONMENT".
func Environ(env []string, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	entries, err := headers.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := headers.ReadFile(e.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), data, 0o644)
		}
		if err != nil {
			return nil, err
		}
	}
	env = slices.Clone(env)
	for _, name := range []string{"C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH"} {
		path := dir
		if was := lookup(append(os.Environ(), env...), name); was != "" {
			path = was + string(filepath.ListSeparator) + dir
		}
		env = append(env, name+"="+path)
	}
	return env, nil
}

// lookup returns the value of a variable in an environment: the last one.
func lookup(env []string, name string) (value string) {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}
