package link

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Bounds of response files: libiberty's own limit of expansions, and room for
// the command line of a very large link.
const (
	maxExpansions   = 2000
	maxResponseFile = 64 << 20
)

// Expand replaces each argument @FILE by the arguments that FILE holds, again
// and again, as the tools of binutils and gcc do (libiberty's expandargv). A
// FILE that cannot be read is an argument like any other. Relative paths start
// at dir.
func Expand(dir string, args []string) ([]string, error) {
	out := make([]string, 0, len(args))
	todo := append([]string(nil), args...)
	for n := 0; len(todo) > 0; {
		arg := todo[0]
		todo = todo[1:]
		name, ok := strings.CutPrefix(arg, "@")
		if !ok {
			out = append(out, arg)
			continue
		}
		data, err := readResponse(dir, name)
		if errors.Is(err, errNotResponse) {
			out = append(out, arg)
			continue
		}
		if err != nil {
			return nil, err
		}
		if n++; n > maxExpansions {
			return nil, fmt.Errorf("response file %s: more than %d response files; do they name each other?", name, maxExpansions)
		}
		todo = append(SplitArgs(string(data)), todo...)
	}
	return out, nil
}

var errNotResponse = errors.New("not a response file")

func readResponse(dir, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return nil, errNotResponse
	}
	if info.Size() > maxResponseFile {
		return nil, fmt.Errorf("response file %s: %d bytes, at most %d are read", name, info.Size(), maxResponseFile)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, errNotResponse
	}
	return data, nil
}

// SplitArgs splits s into arguments at white space. Single and double quotes
// keep white space, a backslash keeps the next byte, also within quotes
// (libiberty's buildargv).
func SplitArgs(s string) []string {
	var args []string
	var arg strings.Builder
	var quote byte
	started := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			arg.WriteByte(s[i])
			started = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, started = c, true
		case quote == 0 && strings.IndexByte(" \t\n\v\f\r", c) >= 0:
			if started {
				args = append(args, arg.String())
				arg.Reset()
				started = false
			}
		default:
			arg.WriteByte(c)
			started = true
		}
	}
	if started {
		args = append(args, arg.String())
	}
	return args
}
