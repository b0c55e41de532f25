package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/compiler/internal/link"
	"github.com/fother/fother/specs"
)

// real returns the tool that would have run had this shim not been there.
// Under gcc, which tells its own name in COLLECT_GCC, or clang, it is what that
// compiler would have found; a cross compiler has tools of its own. Else it is the
// next program of that name on PATH.
func (inv *invocation) real() (tool, error) {
	d, err := inv.driver()
	if err != nil || d.path == "" {
		return inv.onPath(inv.name)
	}
	key := inv.toolKey(d)
	name := ""
	if inv.store != nil {
		name = inv.store.Tool(key)
	}
	if name == "" || filepath.IsAbs(name) && !isRegular(name) {
		if name, err = inv.ask(d); err != nil {
			return tool{}, err
		}
		if inv.store != nil {
			_ = inv.store.SetTool(key, name) // it only saves time
		}
	}
	if strings.Contains(name, "/") {
		return tool{Path: name, Argv0: name}, nil
	}
	return inv.onPath(name)
}

// shimDir is the folder that has to be taken out of the search paths.
func (inv *invocation) shimDir() string {
	if inv.store != nil {
		return inv.store.Shims()
	}
	// A shim may be run outside the build that it was made for: libtool
	// remembers the path of the linker.
	if len(os.Args) > 0 && filepath.IsAbs(os.Args[0]) {
		return filepath.Dir(os.Args[0])
	}
	return ""
}

// driver is the compiler that runs a shim, and those of its options that say where
// it looks for programs.
type driver struct {
	path    string // empty if there is none
	options []string
}

// driver returns the compiler that runs this shim.
func (inv *invocation) driver() (driver, error) {
	name := os.Getenv("COLLECT_GCC")
	switch {
	case name == "":
		d := driver{path: os.Getenv(envClang)}
		if d.path == "" {
			return d, nil
		}
		return d, json.Unmarshal([]byte(os.Getenv(envClangOptions)), &d.options)
	case strings.Contains(name, "/"):
		return driver{inv.abs(name), searchOptions(link.SplitArgs(os.Getenv("COLLECT_GCC_OPTIONS")))}, nil
	}
	t, err := inv.onPath(name)
	return driver{t.Path, searchOptions(link.SplitArgs(os.Getenv("COLLECT_GCC_OPTIONS")))}, err
}

// searchOptions returns those options of gcc's or clang's command line that say where it
// looks for programs. A clang is a cross compiler for each target. What is passed on to
// another program is none of them.
func searchOptions(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case len(a) > 2 && strings.HasPrefix(a, "-X"), a == "-mllvm", a == "-mmlir", a == "-mthread-model", a == "-meabi":
			i++ // its value
		case (a == "-B" || a == "-target" || a == "--sysroot") && i+1 < len(args):
			i++
			out = append(out, a, args[i])
		case strings.HasPrefix(a, "-B"), strings.HasPrefix(a, "-m"), strings.HasPrefix(a, "--target="), strings.HasPrefix(a, "--gcc-toolchain="),
			strings.HasPrefix(a, "--sysroot="), strings.HasPrefix(a, "-specs="):
			out = append(out, a)
		}
	}
	return out
}

// toolKey is the name under which the store remembers what a compiler
// answered. It changes with all that the answer depends on.
func (inv *invocation) toolKey(d driver) string {
	stamp := ""
	if info, err := os.Stat(d.path); err == nil {
		stamp = fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	}
	return specs.DigestOf([]byte(strings.Join(append(slices.Clone(d.options), inv.name, d.path, stamp,
		os.Getenv("GCC_EXEC_PREFIX"), without(os.Getenv("COMPILER_PATH"), inv.shimDir()), os.Getenv("PATH")), "\x00"))).String()
}

// ask asks the compiler for the program that it would run.
func (inv *invocation) ask(d driver) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.path, append(slices.Clone(d.options), "-print-prog-name="+inv.name)...)
	cmd.Env = setenv(os.Environ(), "COMPILER_PATH", without(os.Getenv("COMPILER_PATH"), inv.shimDir()))
	cmd.Env = setenv(cmd.Env, EnvStage, string(specs.StageConfigure))
	out, err := cmd.Output()
	name := strings.TrimSpace(string(out))
	if err != nil || name == "" {
		return "", fmt.Errorf("%s -print-prog-name=%s: no answer: %v", d.path, inv.name, err)
	}
	return name, nil
}

// onPath finds the program name on PATH, apart from this one.
//
// A tool that the build calls itself is started under the name by which it was
// called. gcc starts the assembler under its bare name, and collect2 a linker
// under its whole path. It shows in their messages.
func (inv *invocation) onPath(name string) (tool, error) {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return tool{}, err
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == "" {
			dir = "."
		}
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || os.SameFile(info, self) {
			continue
		}
		if asName.MatchString(name) || os.Args[0] == name {
			return tool{Path: path, Argv0: name}, nil
		}
		return tool{Path: path, Argv0: path}, nil
	}
	return tool{}, fmt.Errorf("%s: %w", name, errNoTool)
}

var errNoTool = errors.New("no such program on PATH, apart from fother-cc's own links")
