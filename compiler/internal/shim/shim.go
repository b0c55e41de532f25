package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/specs"
)

// The environment by which the build runner, fother-cc and the shims talk to
// each other.
const (
	EnvStage = "KPATCH_STAGE" // specs.Stage; LibCare's name
	EnvStore = "FOTHER_STORE" // folder of the store
	// EnvReal and EnvRealCXX name the compilers that fother-cc stands for;
	// LibCare's names.
	EnvReal    = "KPCCREAL"
	EnvRealCXX = "KPCXXREAL"
	// EnvCompilers is the folder on PATH in which builds whose compilers get
	// more arguments find this program under the compilers' names.
	EnvCompilers = "FOTHER_COMPILERS"
	// envLink is the store.Link.Run of the link that an invocation is part of;
	// noCapture if it is not to be recorded.
	envLink   = "FOTHER_LINK"
	noCapture = "-"
	// envClang is the path of the clang that runs a shim, envClangOptions are its
	// searchOptions, as JSON: it does not tell that by itself, as gcc does.
	envClang        = "FOTHER_CLANG"
	envClangOptions = "FOTHER_CLANG_OPTIONS"
	// envDepth counts how often fother-cc has run itself.
	envDepth = "FOTHER_CC_DEPTH"
)

// Exit codes of the shims' own errors.
const (
	exitError = 1
	exitUsage = 2
)

// invocation is one run of this program.
type invocation struct {
	name   string   // base name of argv[0]
	args   []string // without argv[0]
	dir    string
	stderr io.Writer
	stage  specs.Stage
	store  *store.Store // nil: nothing is captured
}

var (
	asName = regexp.MustCompile(`^([a-z0-9_.-]+-)?as$`)
	ldName = regexp.MustCompile(`^([a-z0-9_.-]+-)?ld(\.(bfd|gold|lld|mold))?$`)
)

// IsTool reports whether name is one that this program answers to as an
// assembler or linker.
func IsTool(name string) bool {
	// llvm-as reads another language.
	return name != "llvm-as" && (asName.MatchString(name) || ldName.MatchString(name))
}

// Main runs the program under the name argv[0] and returns its exit code. It
// does not return where another program takes this one's place.
func Main(argv []string, stderr io.Writer) int {
	if len(argv) > 0 && argv[0] == GuardName {
		inv := &invocation{name: GuardName, args: argv[1:], stderr: stderr}
		return inv.guard()
	}
	inv, err := newInvocation(argv, stderr)
	if err != nil {
		return inv.fail(exitUsage, err)
	}
	switch {
	case asName.MatchString(inv.name):
		return inv.assemble()
	case ldName.MatchString(inv.name):
		return inv.link()
	default:
		return inv.cc()
	}
}

func newInvocation(argv []string, stderr io.Writer) (*invocation, error) {
	inv := &invocation{name: "fother-cc", stderr: stderr}
	if len(argv) > 0 {
		inv.name, inv.args = filepath.Base(argv[0]), argv[1:]
	}
	dir, err := os.Getwd()
	if err != nil {
		return inv, err
	}
	inv.dir = dir
	switch inv.stage = specs.Stage(os.Getenv(EnvStage)); inv.stage {
	case "", specs.StageConfigure:
		return inv, nil
	case specs.StageOriginal, specs.StagePatched:
	default:
		return inv, fmt.Errorf("%s=%s: want %s, %s or %s", EnvStage, inv.stage, specs.StageConfigure, specs.StageOriginal, specs.StagePatched)
	}
	if s := os.Getenv(EnvStore); filepath.IsAbs(s) {
		inv.store = store.At(s)
		return inv, nil
	}
	return inv, fmt.Errorf("%s=%s, but %s is not the absolute path of a capture store", EnvStage, inv.stage, EnvStore)
}

// fail reports an error of the shim's own and returns code.
func (inv *invocation) fail(code int, err error) int {
	fmt.Fprintf(inv.stderr, "%s (fother): error: %v\n", inv.name, err)
	return code
}

// failStore reports that capture is not complete: the build must not go on.
func (inv *invocation) failStore(output string, err error) int {
	// make takes a file that is there for one that was built.
	if info, e := os.Lstat(output); e == nil && info.Mode().IsRegular() {
		os.Remove(output)
	}
	return inv.fail(exitError, fmt.Errorf("%s cannot be captured: %w", filepath.Base(output), err))
}

func (inv *invocation) abs(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(inv.dir, path)
}

// isRegular reports whether path is a regular file.
func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// without returns the list of folders, separated by colons, without dir.
func without(list, dir string) string {
	if list == "" {
		return ""
	}
	var out []string
	for _, d := range strings.Split(list, ":") {
		if d != "" && filepath.Clean(d) == dir {
			continue
		}
		out = append(out, d)
	}
	return strings.Join(out, ":")
}
