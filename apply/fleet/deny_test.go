package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestParseDeny(t *testing.T) {
	for _, c := range []struct{ text, err string }{
		{"# nothing\n\n  exe /usr/sbin/* \nunit postgresql*.service\nuser root\nuser 1234", ""},
		{"", ""},
		{"exe nginx", "line 1: exe \"nginx\": want a pattern that begins with /"},
		{"\nexe", "line 2: \"exe\": want a kind and a value"},
		{"exe /a[", "syntax error in pattern"},
		{"unit a/b", "without /"},
		{"user no-such-user-here", "no-such-user-here"},
		{"comm x", "\"comm\": want exe, unit or user"},
		{strings.Repeat("user 1\n", maxDenyRules+1), "more than"},
	} {
		_, err := ParseDeny([]byte(c.text))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.40q: %v: want %q", c.text, err, c.err)
		}
	}
}

func TestDenyRules(t *testing.T) {
	const groups = "0::/system.slice/postgresql@15-main.service\n"
	for _, c := range []struct {
		rule, groups string
		want         bool
	}{
		{"exe /usr/bin/nginx", groups, true},
		{"exe /usr/bin/*", groups, true},
		{"exe /usr/bin", groups, false},
		{"exe /bin/nginx", groups, false},
		{"user 33", groups, true},
		{"user 0", groups, false},
		{"unit postgresql@15-main.service", groups, true},
		{"unit postgresql*", groups, true},
		{"unit system.slice", groups, true},
		{"unit nginx.service", groups, false},
		{"unit box", "12:pids:/docker/box\n11:memory:/x\n", true},
		{"unit box", "", false},
	} {
		r, err := parseDenyRule(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.matches("/usr/bin/nginx", 33, c.groups); got != c.want {
			t.Errorf("%s, %q: %v", c.rule, c.groups, got)
		}
	}
}

// TestDenyLive: what the list says of this very process.
func TestDenyLive(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for rule, want := range map[string]bool{
		"exe " + filepath.Dir(exe) + "/*": true, "user " + strconv.Itoa(os.Getuid()): true, "user 65533": false, "exe /no/such": false,
	} {
		d, err := ParseDeny([]byte(rule))
		if err != nil {
			t.Fatal(err)
		}
		var denied *DeniedError
		if err := d.Check(os.Getpid()); errors.As(err, &denied) != want || want && denied.Rule != rule {
			t.Errorf("%s: %v", rule, err)
		}
		if strings.HasPrefix(rule, "exe") && d.Check(1<<22) != nil {
			t.Errorf("%s: a process that is not there", rule)
		}
	}
}

func FuzzDeny(f *testing.F) {
	f.Add([]byte("exe /usr/*\nunit a.service\nuser 0\n# x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := ParseDeny(text); err == nil {
			_ = d.Check(os.Getpid())
		}
	})
}
