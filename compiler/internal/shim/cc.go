package shim

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/fother/fother/specs"
)

// maxDepth bounds how often fother-cc may run itself through other wrappers.
const maxDepth = 8

// ownName matches the names that this program is installed under: its own and
// LibCare's.
var ownName = regexp.MustCompile(`^(fother|libcare|lcmake|kpatch)[-_]`)

var compilerName = regexp.MustCompile(`^([A-Za-z0-9_.-]+-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-[0-9.]+)?$`)

// IsCompiler reports whether name is that of a compiler driver of gcc or clang.
func IsCompiler(name string) bool {
	return compilerName.MatchString(name) && !ownName.MatchString(name)
}

// cc stands for a compiler: in the stages that capture it puts the shims in
// the compiler's way, then the compiler takes its place, but for clang.
func (inv *invocation) cc() int {
	depth, _ := strconv.Atoi(os.Getenv(envDepth)) // absent is 0
	if depth >= maxDepth {
		return inv.fail(exitUsage, fmt.Errorf("%s runs itself: %s or %s leads back to it", inv.name, EnvReal, EnvRealCXX))
	}
	real, args, err := inv.compiler()
	if err != nil {
		return inv.fail(exitUsage, err)
	}
	env := setenv(os.Environ(), envDepth, strconv.Itoa(depth+1))
	if dir := os.Getenv(EnvCompilers); dir != "" {
		// gcc looks for its parts beside the first program of its name on PATH.
		env = setenv(env, "PATH", without(os.Getenv("PATH"), dir))
	}
	if inv.store != nil && depth == 0 && !inv.onPathShim() && !isProbe(args) {
		args = modify(args)
	}
	if inv.store != nil {
		if !isRegular(filepath.Join(inv.store.Shims(), "as")) {
			return inv.fail(exitUsage, fmt.Errorf("%s=%s: not a capture store", EnvStore, inv.store.Dir()))
		}
		env = Environ(env, inv.store.Dir(), inv.stage)
		if IsClang(real.Path) {
			return inv.clang(real, args, env)
		}
	}
	return inv.fail(exitError, real.exec(args, env))
}

// Environ returns env with what makes gcc run the shims of the store in
// folder dir.
func Environ(env []string, dir string, stage specs.Stage) []string {
	shims := filepath.Join(dir, "shim")
	path := shims
	for _, kv := range env {
		if rest, ok := strings.CutPrefix(kv, "COMPILER_PATH="); ok && without(rest, shims) != "" {
			path = shims + ":" + without(rest, shims)
		}
	}
	env = setenv(env, "COMPILER_PATH", path)
	env = setenv(env, "CCACHE_DISABLE", "1")
	env = setenv(env, EnvStore, dir)
	return setenv(env, EnvStage, string(stage))
}

// compiler returns the compiler that this invocation stands for, and its
// arguments:
//
//  1. the compiler of the same name, if the build found this program on PATH in
//     the store's folder; else
//     the first argument, if it is the name of a compiler (fother-cc gcc -c …);
//  2. else for a name with "++" in it $KPCXXREAL, for others $KPCCREAL;
//  3. else the compiler of the same name, if this program is called by the
//     name of one;
//  4. else g++ or gcc.
func (inv *invocation) compiler() (tool, []string, error) {
	if inv.onPathShim() {
		t, err := inv.program(inv.name)
		return t, inv.args, err
	}
	if len(inv.args) > 0 && compilerName.MatchString(filepath.Base(inv.args[0])) && !isSource(inv.args[0]) {
		t, err := inv.program(inv.args[0])
		return t, inv.args[1:], err
	}
	variable, name := EnvReal, "gcc"
	if strings.Contains(inv.name, "++") {
		variable, name = EnvRealCXX, "g++"
	}
	if compilerName.MatchString(inv.name) && !ownName.MatchString(inv.name) {
		name = inv.name
	}
	value := os.Getenv(variable)
	if value == "" {
		t, err := inv.program(name)
		return t, inv.args, err
	}
	t, err := inv.program(value)
	if words := strings.Fields(value); err != nil && len(words) > 1 {
		t, err = inv.program(words[0])
		return t, append(words[1:], inv.args...), wrap(variable, err)
	}
	return t, inv.args, wrap(variable, err)
}

// onPathShim reports whether this program is run as one of the links that the
// build finds on PATH.
func (inv *invocation) onPathShim() bool {
	if inv.store == nil || ownName.MatchString(inv.name) {
		return false
	}
	if dir := filepath.Dir(os.Args[0]); dir != "." && dir != inv.store.PathShims() {
		return false
	}
	if dir := os.Getenv(EnvCompilers); dir != "" {
		// The folder of compilers comes before it, and may have the same name.
		if _, err := os.Lstat(filepath.Join(dir, inv.name)); err == nil {
			return false
		}
	}
	_, err := os.Lstat(filepath.Join(inv.store.PathShims(), inv.name))
	return err == nil
}

func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// isSource reports whether a compiler would take arg for a file of its own:
// one called "cc" in the current folder is no program.
func isSource(arg string) bool { return !strings.Contains(arg, "/") && isRegular(arg) }

// program finds the compiler name, which is not this program.
func (inv *invocation) program(name string) (tool, error) {
	if !strings.Contains(name, "/") {
		t, err := inv.onPath(name)
		return tool{Path: t.Path, Argv0: name}, err
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return tool{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return tool{}, err
	}
	if self, err := os.Stat("/proc/self/exe"); err == nil && os.SameFile(info, self) {
		return tool{}, fmt.Errorf("%s: %w", name, errors.New("is fother-cc itself"))
	}
	return tool{Path: path, Argv0: name}, nil
}
