package tools

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// A host is a machine to look at: its files and its PATH.
type host struct {
	root fs.FS // of "/"
	look func(program string) (string, error)
}

func thisHost() host { return host{os.DirFS("/"), exec.LookPath} }

// Check returns nil if all needs are met, or a [*MissingError].
func Check(needs ...string) error { return thisHost().check(needs) }

// MissingError names what is missing on this machine.
type MissingError struct {
	// Missing are the needs that are not met, in the order asked for.
	Missing []string
	// Command installs all of them, or is "" on an unknown distribution and
	// for names that this package does not know.
	Command string
}

func (e *MissingError) Error() string {
	if len(e.Missing) == 1 {
		return e.Missing[0] + " is missing on this machine"
	}
	return strings.Join(e.Missing, ", ") + " are missing on this machine"
}

// Hint says what to do.
func (e *MissingError) Hint() string {
	if e.Command == "" {
		return "install " + strings.Join(e.Missing, ", ") + " with your distribution's package manager"
	}
	return "install with: " + e.Command
}

func (h host) check(needs []string) error {
	missing := h.missing(needs)
	if len(missing) == 0 {
		return nil
	}
	err := &MissingError{Missing: missing}
	if m := h.manager(); m != nil {
		if packages, ok := m.packages(missing); ok {
			err.Command = fmt.Sprintf("%s %s", m.install, strings.Join(packages, " "))
		}
	}
	return err
}

func (h host) missing(needs []string) []string {
	var missing []string
	for _, need := range needs {
		if !h.has(need) && !slices.Contains(missing, need) {
			missing = append(missing, need)
		}
	}
	return missing
}

func (h host) has(need string) bool {
	if !isHeader(need) {
		_, err := h.look(need)
		return err == nil
	}
	// usr/include/x86_64-linux-gnu and the like are Debian's multiarch folders.
	for _, dir := range []string{"usr/include", "usr/local/include", "usr/include/*-linux-gnu*"} {
		if found, err := fs.Glob(h.root, path.Join(dir, need)); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

func isHeader(need string) bool { return strings.HasSuffix(need, ".h") }
