package fleet

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"
)

// Deny says which processes are never changed. A nil Deny allows all.
type Deny struct{ rules []denyRule }

// denyRule is one line of a deny list.
type denyRule struct {
	kind, text string
	uid        int // of kind user
}

func (r denyRule) String() string { return r.kind + " " + r.text }

// DeniedError means that a process must not be changed.
type DeniedError struct {
	PID  int
	Rule string // as the list has it
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("left alone: the deny list has %q", e.Rule)
}

// Bounds of a deny list.
const (
	maxDenyRules = 10000
	// MaxDenyList bounds its size, in bytes.
	MaxDenyList = 1 << 20
)

// ParseDeny reads a deny list: one rule a line, and nothing behind it.
//
//	exe PATTERN    the executable's path, as the process's own mounts have it
//	unit PATTERN   a unit of systemd, or another control group on the way to it
//	user NAME      the real user, by name or number
//
// Patterns are those of [path.Match]; empty lines, and what begins with #, say
// nothing. Errors name the line.
func ParseDeny(text []byte) (*Deny, error) {
	d := &Deny{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, MaxDenyList)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := parseDenyRule(line)
		if err == nil && len(d.rules) == maxDenyRules {
			err = fmt.Errorf("more than %d rules", maxDenyRules)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		d.rules = append(d.rules, r)
	}
	return d, lines.Err()
}

func parseDenyRule(line string) (denyRule, error) {
	kind, text, _ := strings.Cut(line, " ")
	r := denyRule{kind: kind, text: strings.TrimSpace(text)}
	if r.text == "" {
		return r, fmt.Errorf("%q: want a kind and a value", line)
	}
	switch kind {
	case "exe":
		if r.text[0] != '/' {
			return r, fmt.Errorf("exe %q: want a pattern that begins with /", r.text)
		}
	case "unit":
		if strings.Contains(r.text, "/") {
			return r, fmt.Errorf("unit %q: want one name, without /", r.text)
		}
	case "user":
		var err error
		r.uid, err = userID(r.text)
		return r, err
	default:
		return r, fmt.Errorf("%q: want exe, unit or user", kind)
	}
	if _, err := path.Match(r.text, ""); err != nil {
		return r, fmt.Errorf("%s %q: %w", kind, r.text, err)
	}
	return r, nil
}

func userID(name string) (int, error) {
	if uid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(u.Uid)
}

// Check returns a [*DeniedError] if process pid must not be changed. What
// cannot be read of it, since it has ended or is another's, denies nothing: it
// cannot be changed either.
func (d *Deny) Check(pid int) error {
	if d == nil {
		return nil
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // or empty
	return d.CheckProgram(pid, strings.TrimSuffix(exe, " (deleted)"))
}

// CheckProgram returns what Check will, once process pid has executed the
// program at exe, a path without links.
func (d *Deny) CheckProgram(pid int, exe string) error {
	if d == nil || len(d.rules) == 0 {
		return nil
	}
	groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	uid, err := owner(pid)
	if err != nil {
		uid = -1
	}
	for _, r := range d.rules {
		if r.matches(exe, uid, string(groups)) {
			return &DeniedError{PID: pid, Rule: r.String()}
		}
	}
	return nil
}

// matches reports whether the rule is for a process. groups is its
// /proc/PID/cgroup: lines of number, controllers and path (cgroups(7)).
func (r denyRule) matches(exe string, uid int, groups string) bool {
	match := func(name string) bool {
		ok, err := path.Match(r.text, name)
		return ok && err == nil
	}
	switch r.kind {
	case "exe":
		return match(exe)
	case "user":
		return uid == r.uid
	}
	for line := range strings.Lines(groups) {
		for name := range strings.SplitSeq(strings.TrimRight(line, "\n"), "/") {
			if name != "" && match(name) {
				return true
			}
		}
	}
	return false
}
