package pipeline

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/fother/fother/differ"
)

// Report prints the functions that differ, for a person.
func Report(w io.Writer, targets []Target) {
	for _, t := range targets {
		fmt.Fprintf(w, "%s  build-id %s\n", t.Name, t.BuildID)
		for _, u := range t.Unchecked {
			fmt.Fprintf(w, "  warning: %s\n", u)
		}
		for _, u := range t.Units {
			fmt.Fprintf(w, "  %s\n", u.Changes.Unit)
			for _, f := range u.Changes.Functions {
				if f.Verdict == differ.Same {
					continue
				}
				fmt.Fprintf(w, "    %-8v %s: %s\n", f.Verdict, f.Name, f.Reason)
				if d := f.First; d != nil {
					fmt.Fprintf(w, "             - %s\n             + %s\n", d.Original, d.Patched)
				}
			}
		}
	}
}

// Rel returns path as a person in the current folder would type it.
func Rel(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(wd, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}

// plural says how many there are of something.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
