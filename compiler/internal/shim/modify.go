package shim

import (
	"os"
	"slices"
	"strings"
)

// LibCare's variables that change the arguments of a captured compiler. Each
// holds arguments between semicolons.
const (
	EnvAppendArgs = "KPCC_APPEND_ARGS"
	EnvRemoveArgs = "KPCC_REMOVE_ARGS"
)

// probes are parts of the arguments of compilers that configure scripts run:
// of autoconf and of QEMU. LibCare's wrapper takes them for the stage
// configure.
var probes = []string{"conftest.", "qemu-conf"}

// isProbe reports whether a configure script runs the compiler.
func isProbe(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		return slices.ContainsFunc(probes, func(p string) bool { return strings.Contains(arg, p) })
	})
}

// modify returns the compiler's arguments with those removed and added that the
// environment names, as LibCare's wrapper does it: in the stages that capture,
// for commands that compile, assemble or link something.
func modify(args []string) []string {
	remove, add := splitList(os.Getenv(EnvRemoveArgs)), splitList(os.Getenv(EnvAppendArgs))
	if len(remove)+len(add) == 0 || !makesSomething(args) {
		return args
	}
	out := slices.DeleteFunc(slices.Clone(args), func(arg string) bool {
		return len(arg) > 1 && arg[0] == '-' && slices.Contains(remove, arg)
	})
	return append(out, add...)
}

// splitList splits at semicolons; empty parts are none.
func splitList(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ';' })
}

// makesSomething reports whether a compiler with these arguments makes a file
// from another, and not only preprocesses it or answers a question.
func makesSomething(args []string) bool {
	inputs := false
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-E", arg == "-M", arg == "-MM", arg == "--version", arg == "-dumpmachine", arg == "-dumpversion":
			return false
		case arg == "-o", arg == "-x", arg == "-MF", arg == "-MT", arg == "-MQ", arg == "-include", arg == "-isystem", arg == "-iquote", arg == "-I", arg == "-D", arg == "-L":
			i++
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			inputs = true
		}
	}
	return inputs
}
