package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

const (
	deploy    = "../../deploy/"
	installed = "/usr/local/bin/fother" // where the deployed files expect it
)

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(deploy + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// unit returns the settings of a systemd unit by section and key, as
// "Service.Type".
func unit(t *testing.T, name string) map[string]string {
	t.Helper()
	settings, section := make(map[string]string), ""
	for line := range strings.Lines(readDeploy(t, name)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = section + "." + key
		if _, twice := settings[key]; !ok || twice {
			t.Fatalf("%s: %q", name, line)
		}
		settings[key] = value
	}
	return settings
}

// defaults are the settings of fother.default as a shell reads them, those in
// comments too.
func defaults(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	// What systemd and shells read alike.
	setting := regexp.MustCompile(`^#?([A-Z_]+)="([^"$\\]*)"$`)
	for line := range strings.Lines(readDeploy(t, "fother.default")) {
		line = strings.TrimSpace(line)
		if m := setting.FindStringSubmatch(line); m != nil {
			all[m[1]] = m[2]
		} else if line != "" && !strings.HasPrefix(line, "# ") {
			t.Errorf("fother.default: %q", line)
		}
	}
	return all
}

// known checks that a command line is one of fother's, with the options of
// fother.default.
func known(t *testing.T, line string) {
	t.Helper()
	args := strings.Fields(strings.ReplaceAll(line, "$FOTHER_OPTIONS", defaults(t)["FOTHER_OPTIONS"]))
	if len(args) < 2 || args[0] != installed || strings.Contains(line, "-h") {
		t.Fatalf("%q: not a command line of fother", line)
	}
	// All before -h is read, and nothing is done.
	out, stderr, code := fother(append(args[1:], "-h")...)
	if code != 0 || !strings.HasPrefix(out, "usage: fother pull") {
		t.Errorf("%q: exit %d, %s", line, code, stderr)
	}
}

func TestDeployedCommandLines(t *testing.T) {
	known(t, unit(t, "fother-pull.service")["Service.ExecStart"])
	for name := range defaults(t) {
		if !slices.Contains([]string{"FOTHER_REGISTRY", "FOTHER_OPTIONS", "HTTPS_PROXY"}, name) {
			t.Errorf("fother.default sets %s", name)
		}
	}
	_, line := cronLine(t)
	_, command, ok := strings.Cut(line, "exec ")
	if !ok {
		t.Fatalf("%q", line)
	}
	known(t, command)
}

func cronLine(t *testing.T) (when []string, command string) {
	t.Helper()
	for line := range strings.Lines(readDeploy(t, "fother-pull.cron")) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 7)
		if command != "" || len(f) != 7 || f[5] != "root" || !strings.HasSuffix(line, "\n") {
			t.Fatalf("want one line of time, root and command: %q", line)
		}
		when, command = f[:5], f[6]
	}
	return when, command
}

// TestCronLine runs the command with stand-ins for fother and sleep.
func TestCronLine(t *testing.T) {
	when, command := cronLine(t)
	if got := strings.Join(when, " "); got != "*/15 * * * *" {
		t.Errorf("it runs at %q", got)
	}
	if strings.Contains(command, "%") {
		t.Error("cron ends a command at %")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "default"), []byte("FOTHER_REGISTRY=\"/srv/a registry\"\nFOTHER_OPTIONS=\"--wait 10s -v\"\n"))
	for name, script := range map[string]string{
		"fother": "#!/bin/sh\necho \"$FOTHER_REGISTRY:$*\"\n", "sleep": "#!/bin/sh\n[ $# = 1 ] && [ \"$1\" -ge 0 ] && [ \"$1\" -lt 300 ] || echo bad delay \"$@\"\n",
	} {
		write(t, filepath.Join(dir, name), []byte(script))
		if err := os.Chmod(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	command = strings.NewReplacer("/etc/default/fother", filepath.Join(dir, "default"), installed, filepath.Join(dir, "fother")).Replace(command)
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if got, want := string(out), "/srv/a registry:pull --wait 10s -v\n"; err != nil || got != want {
		t.Errorf("%v, %q: want %q", err, got, want)
	}
}

// TestUnitDoesNotBreakTracing holds the line that the comments in the unit
// draw, and that they name all there is.
func TestUnitDoesNotBreakTracing(t *testing.T) {
	s := unit(t, "fother-pull.service")
	for _, forbidden := range []string{
		// systemd installs a seccomp filter for these.
		"SystemCallFilter", "SystemCallLog", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime",
		"RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality", "PrivateDevices", "ProtectClock", "ProtectHostname",
		"ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
		// These hide processes, or take the right to trace them away.
		"User", "DynamicUser", "PrivateUsers", "PrivatePIDs", "ProtectProc", "ProcSubset", "RootDirectory", "RootImage",
	} {
		if v, ok := s["Service."+forbidden]; ok {
			t.Errorf("%s=%s", forbidden, v)
		}
		if !strings.Contains(readDeploy(t, "fother-pull.service"), forbidden) {
			t.Errorf("the unit does not tell that %s must not be there", forbidden)
		}
	}
	if s["Service.StateDirectory"] != "fother" || s["Service.StateDirectoryMode"] != "0700" || s["Service.ProtectSystem"] != "strict" {
		t.Errorf("%v", slices.Sorted(maps.Keys(s)))
	}
	timer := unit(t, "fother-pull.timer")
	if timer["Timer.RandomizedDelaySec"] == "" || timer["Timer.Persistent"] != "yes" || timer["Install.WantedBy"] != "timers.target" {
		t.Errorf("%v", timer)
	}
}

func TestSystemdVerifiesUnits(t *testing.T) {
	testenv.Needs(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range []string{"fother-pull.service", "fother-pull.timer"} {
		// It wants the program to be there.
		text := strings.ReplaceAll(readDeploy(t, name), installed, "/bin/true")
		write(t, filepath.Join(dir, name), []byte(text))
	}
	cmd := exec.Command("systemd-analyze", "verify", "./fother-pull.service", "./fother-pull.timer")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// builtTool names a file with the tool, for machines without Go's compiler: as
// release builds it.
const builtTool = "FOTHER_TEST_TOOL"

// release builds the tool as it is deployed: static and without debug data.
func release(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: builds the tool as it is deployed")
	}
	if tool := os.Getenv(builtTool); tool != "" {
		return tool
	}
	path := filepath.Join(t.TempDir(), "fother")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

const sandboxSource = `
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <unistd.h>
/* whoever maps memory from here on is killed */
__attribute__((constructor)) static void sandbox(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {4, f};
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p);
}
`

// TestDeployed runs the tool as it is deployed, with the rights that the unit
// leaves it, on a process of another user that a seccomp filter confines.
func TestDeployed(t *testing.T) {
	tool := release(t)
	info, err := os.Stat(tool)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 16_000_000
	if info.Size() > limit {
		t.Errorf("%d bytes, static and without debug data: want at most %d", info.Size(), limit)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	for _, program := range []string{"setpriv", "unshare", "mount"} {
		if _, err := exec.LookPath(program); err != nil || os.Getuid() != 0 {
			testenv.Skip(t, "root and "+program+" are needed")
		}
	}
	setpriv, err := exec.LookPath("setpriv") // a shell may have one of its own
	if err != nil {
		t.Fatal(err)
	}
	prog, s := fixture(t), newShelf(t)
	s.publish(prog.patch(t, "default", 1))
	dir, err := os.MkdirTemp("", "fother-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	lib, confined := filepath.Join(dir, "sandbox.so"), &program{bin: filepath.Join(dir, "prog")}
	write(t, lib+".c", []byte(sandboxSource))
	for _, args := range [][]string{{"gcc", "-shared", "-fPIC", "-o", lib, lib + ".c"}, {"cp", prog.bin, confined.bin}, {"chmod", "755", dir, lib, confined.bin}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	c := ask(t, confined, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "LD_PRELOAD="+lib)

	caps := "--bounding-set=-all"
	for _, name := range strings.Fields(unit(t, "fother-pull.service")["Service.CapabilityBoundingSet"]) {
		caps += ",+" + strings.ToLower(strings.TrimPrefix(name, "CAP_"))
	}
	run := func(caps string, code int, want string) {
		t.Helper()
		// As with ProtectSystem=strict: all is read-only but the state.
		cmd := exec.Command("unshare", "--mount", "sh", "-ec",
			`mkdir -p "$1"; mount -o remount,bind,ro /; mount --bind "$1" "$1"; mount -o remount,bind,rw "$1"; shift; exec "$@"`, "sh",
			s.state, setpriv, caps, "--no-new-privs", tool, "pull", "--registry", s.dir, "--root", s.root, "--state", s.state, "-p", c.pid())
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%s: exit %d: want %d, %q:\n%s", caps, got, code, want, out)
		}
	}
	run("--bounding-set=-all,+sys_ptrace,+dac_override", 4, "CAP_SYS_ADMIN")
	c.expect("2")
	run("--bounding-set=-all,+dac_override", 1, "CAP_SYS_PTRACE")
	c.expect("2")
	run(caps, 0, "1 bundle applied")
	c.expect("41")
}
