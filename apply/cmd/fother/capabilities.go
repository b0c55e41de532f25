package main

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// capability is a right that root usually has, and what cannot be done
// without it.
type capability struct {
	bit           uint
	name, without string
}

// capabilities are those that the tool uses, if it has them.
var capabilities = []capability{
	{unix.CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "processes of other users, and those with more rights, are out of reach"},
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "the memory of other users' processes cannot be opened"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "processes whose threads all have a seccomp filter are refused"},
}

// lacking returns those that a process, of which status is the text of
// /proc/PID/status, does not have.
func lacking(status []byte) []capability {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("CapEff:"))
		if !ok {
			continue
		}
		has, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
		if err != nil {
			return nil
		}
		var all []capability
		for _, c := range capabilities {
			if has&(1<<c.bit) == 0 {
				all = append(all, c)
			}
		}
		return all
	}
	return nil
}

// noteCapabilities tells root what it lacks before it looks at all processes;
// without a terminal, unless -v is given, only what it can do little without:
// cron sends mail whenever there is output. Others know that only their own are
// theirs.
func (t *tool) noteCapabilities() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil || os.Geteuid() != 0 {
		return
	}
	quiet := !t.verbose && terminal(t.stderr) == nil
	for _, c := range lacking(status) {
		if quiet && c.bit != unix.CAP_SYS_PTRACE {
			continue
		}
		t.note("this run has no %s: %s", c.name, c.without)
	}
}
