package tools

import (
	"path/filepath"
	"regexp"
)

// lacks are the words of shells, make, gcc and our shims for a program that is
// not there.
var lacks = []*regexp.Regexp{
	regexp.MustCompile(`(?m): ([^\s:]+): (?:[cC]ommand )?not found$`),
	regexp.MustCompile(`(?m)^\S*make(?:\[\d+\])?: ([^\s:]+): No such file or directory$`),
	regexp.MustCompile(`(?m): ([^\s:]+): no such program on PATH`),
	regexp.MustCompile("(?:cannot|error trying to) exec(?:ute)? ['‘`]([^'’]+)['’]"),
}

// MissingIn returns a [*MissingError] for the programs that a build did not
// find, going by the end of its output, or nil.
func MissingIn(output string) error {
	var names []string
	for _, words := range lacks {
		for _, m := range words.FindAllStringSubmatch(output, -1) {
			name := filepath.Base(m[1])
			switch name {
			case "cc", "c99":
				name = "gcc"
			case "c++":
				name = "g++"
			}
			names = append(names, name)
		}
	}
	return Check(names...)
}
