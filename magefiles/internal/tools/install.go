package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// lists is held while apt's lists are refreshed, once in a process.
var lists struct {
	sync.Mutex
	fresh bool
}

// Install installs what is missing of needs, if anything. It does so as root
// on distributions with apt; elsewhere it returns the [*MissingError] of
// [Check], which names the command.
func Install(ctx context.Context, needs ...string) error {
	h := thisHost()
	err := h.check(needs)
	missing, ok := errors.AsType[*MissingError](err)
	if !ok {
		return err
	}
	m := h.manager()
	if m != managers[0] || missing.Command == "" || os.Geteuid() != 0 {
		return missing
	}
	if err := refresh(ctx); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing.Missing, ", "), err)
	}
	packages, _ := m.packages(missing.Missing)
	args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, args...); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(missing.Missing, ", "), err)
	}
	return h.check(needs)
}

func refresh(ctx context.Context) error {
	lists.Lock()
	defer lists.Unlock()
	if lists.fresh {
		return nil
	}
	err := aptGet(ctx, "update")
	lists.fresh = err == nil
	return err
}

// aptGet changes the system, unlike [Apt].
func aptGet(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=600"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	_, err := run(cmd)
	return err
}

// run returns what cmd wrote to its standard output. Its error quotes the end
// of what the command wrote to its standard error, else to its output.
func run(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := errs.String()
		if strings.TrimSpace(said) == "" {
			said = out.String()
		}
		return nil, fmt.Errorf("%s: %w\n%s", words(cmd.Args), err, tail(said, 15))
	}
	return out.Bytes(), nil
}

// words leaves the options out of a command line, for messages.
func words(args []string) string {
	var all []string
	for i := 0; i < len(args); i++ {
		if args[i] == "-o" {
			i++
		} else if !strings.HasPrefix(args[i], "-") {
			all = append(all, args[i])
		}
	}
	return strings.Join(all, " ")
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
