package shim

import (
	"slices"
	"strings"
)

// clangJob is a command that clang's driver runs.
type clangJob struct {
	program       string
	args          []string
	input, output string // as written
}

// parseJobs reads what "clang -###" prints: one command a line, each word in
// quotes, with a backslash before quotes, backslashes and dollar signs. Commands
// that are not clang's own are left out.
func parseJobs(said string) []clangJob {
	var jobs []clangJob
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, ` "`) {
			continue
		}
		words := quotedWords(line)
		if len(words) < 3 || words[1] != "-cc1" && words[1] != "-cc1as" {
			continue
		}
		j := clangJob{program: words[0], args: words[1:], input: words[len(words)-1]}
		if o := j.values("-o"); len(o) > 0 {
			j.output = o[len(o)-1]
		}
		jobs = append(jobs, j)
	}
	return jobs
}

func quotedWords(line string) (words []string) {
	for i := 0; i < len(line); i++ {
		if line[i] != '"' {
			continue
		}
		var w []byte
		for i++; i < len(line) && line[i] != '"'; i++ {
			if line[i] == '\\' && i+1 < len(line) {
				i++
			}
			w = append(w, line[i])
		}
		words = append(words, string(w))
	}
	return words
}

func (j clangJob) has(arg string) bool { return slices.Contains(j.args, arg) }

// values returns what follows each option of that name.
func (j clangJob) values(option string) (all []string) {
	for i := 0; i+1 < len(j.args); i++ {
		if j.args[i] == option {
			i++
			all = append(all, j.args[i])
		}
	}
	return all
}

// compiles reports whether j makes an object from source.
func (j clangJob) compiles() bool { return j.args[0] == "-cc1" && j.has("-emit-obj") }

// bitcode reports whether j makes intermediate code.
func (j clangJob) bitcode() bool {
	return j.args[0] == "-cc1" && j.has("-emit-llvm-bc") && !strings.HasSuffix(j.output, ".bc")
}

// makesObject reports whether a link may take what j makes.
func (j clangJob) makesObject() bool {
	return j.output != "" && (j.compiles() || j.bitcode() || j.args[0] == "-cc1as")
}

// sideOutputs are the options of clang -cc1 that name a file to write beside
// the output, or that say what is in that file.
var sideOutputs = map[string]bool{
	"-dependency-file": true, "-MT": true, "-dependency-dot": true, "-header-include-file": true,
	"-serialize-diagnostic-file": true, "-diagnostic-log-file": true, "-opt-record-file": true,
	"-split-dwarf-output": true, "-stats-file": true, "-module-dependency-dir": true,
}

var sidePrefixes = []string{"-ftime-trace", "-stats-file=", "-coverage-notes-file=", "-stack-usage-file"}

// with returns j with another output, and with no other.
func (j clangJob) with(output string) clangJob {
	var args []string
	for i := 0; i < len(j.args); i++ {
		switch arg := j.args[i]; {
		case arg == "-o":
			i++
			args = append(args, "-o", output)
		case sideOutputs[arg]:
			i++
		case slices.ContainsFunc(sidePrefixes, func(p string) bool { return strings.HasPrefix(arg, p) }):
		default:
			args = append(args, arg)
		}
	}
	j.args, j.output = args, output
	return j
}

// from returns j with another input.
func (j clangJob) from(input string) clangJob {
	j.args = append(slices.Clone(j.args[:len(j.args)-1]), input)
	j.input = input
	return j
}

// toText returns the compilation j with assembly text as output.
func (j clangJob) toText(output string) clangJob {
	j = j.with(output)
	args := slices.DeleteFunc(j.args, func(arg string) bool { return arg == "-mrelax-all" })
	args[slices.Index(args, "-emit-obj")] = "-S"
	j.args = args
	return j
}

// assembly are the options of clang -cc1 that clang -cc1as has too and that
// matter to what it makes; true for those with a value.
var assembly = map[string]bool{
	"-triple": true, "-target-cpu": true, "-target-feature": true, "-target-abi": true, "-mrelocation-model": true,
	"-mrelax-all": false, "--mrelax-relocations": false, "-mrelax-relocations=no": false, "-mnoexecstack": false,
	"-mincremental-linker-compatible": false,
}

// assembler returns the command that assembles as j does, but for -o and the
// input.
func (j clangJob) assembler() clangJob {
	if j.args[0] == "-cc1as" {
		out := j.with("")
		at := slices.Index(out.args, "-o")
		out.args = slices.Delete(out.args, at, at+2)
		out.args = out.args[:len(out.args)-1]
		return out
	}
	args := []string{"-cc1as", "-filetype", "obj"}
	for i := 1; i < len(j.args); i++ {
		value, ok := assembly[j.args[i]]
		if !ok {
			continue
		}
		args = append(args, j.args[i])
		if value && i+1 < len(j.args) {
			i++
			args = append(args, j.args[i])
		}
	}
	for _, dir := range j.values("-I") {
		args = append(args, "-I", dir)
	}
	return clangJob{program: j.program, args: args}
}
