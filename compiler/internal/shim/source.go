package shim

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/internal/link"
)

// maxCommandLine bounds what is read of the compiler's command line: the
// kernel's limit for one argument string is less.
const maxCommandLine = 8 << 20

// source tells the source file of a unit whose text names file in its first
// .file directive. The text has the base name only (and of a #line directive,
// in generated code), so the argument of the compiler's own command line that
// ends in it is taken.
func (inv *invocation) source(file string, a *asArgs) string {
	var sources []string
	for _, arg := range inv.compilerArgs() {
		if isSourceName(arg) {
			sources = append(sources, arg)
		}
	}
	for _, s := range sources {
		if filepath.Base(s) == filepath.Base(file) {
			return inv.abs(s)
		}
	}
	switch {
	case len(sources) == 1:
		return inv.abs(sources[0])
	case file != "":
		return inv.abs(file)
	case !a.stdin():
		return inv.abs(a.inputs[0])
	}
	return inv.abs(a.output)
}

// compilerArgs returns the command line of the process that runs this one, if
// it is a compiler.
func (inv *invocation) compilerArgs() []string {
	if os.Getenv("COLLECT_GCC") == "" {
		return nil
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", os.Getppid()))
	if err != nil || len(data) > maxCommandLine {
		return nil
	}
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(data, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	if all, err := link.Expand(inv.dir, args); err == nil {
		args = all
	}
	return args
}

// isSourceName reports whether a compiler's argument looks like a source file:
// it has one of gcc's suffixes of languages that it compiles to assembly.
func isSourceName(arg string) bool {
	if strings.HasPrefix(arg, "-") {
		return false
	}
	switch filepath.Ext(arg) {
	case ".c", ".i", ".cc", ".cp", ".cxx", ".cpp", ".CPP", ".c++", ".C", ".ii", ".s", ".S", ".sx",
		".m", ".mm", ".f", ".for", ".f90", ".f95", ".F", ".F90", ".d", ".go", ".adb", ".ads":
		return true
	}
	return false
}
