package pipeline

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/klauspost/compress/zstd"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/kpack/elfobj"
)

// maxAsked bounds how long a tool may take to say what it is.
const maxAsked = 30 * time.Second

// toolchain returns what the compilers, assemblers and linkers of targets say
// of themselves, sorted, and the version of Fother, if it is a released one.
func toolchain(ctx context.Context, targets []Target) []string {
	lines, programs := map[string]bool{fotherVersion(): true}, map[string]bool{}
	for _, t := range targets {
		for _, u := range t.Units {
			lines[u.Changes.Producer] = true
		}
		for _, p := range t.Tools {
			programs[p] = true
		}
	}
	for p := range programs {
		lines[versionLine(ctx, p)] = true
	}
	delete(lines, "")
	return slices.Sorted(maps.Keys(lines))
}

// toolsOf returns the paths of the assemblers and linkers that made a target.
func toolsOf(t *Target) []string {
	programs := map[string]bool{}
	for _, l := range []*compiler.Link{t.Original, t.Patched} {
		programs[l.Linker] = true
		for _, u := range l.Units() {
			programs[u.Assembler] = true
		}
	}
	delete(programs, "")
	return slices.Sorted(maps.Keys(programs))
}

// fotherVersion is a line about Fother itself, "" for a checkout: its version
// stays while its code changes.
func fotherVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := released(info); v != "" {
			return "fother " + v
		}
	}
	return ""
}

// versionLine returns the first line that a program prints if it is asked for
// its version, "" if it does not tell.
func versionLine(ctx context.Context, program string) string {
	if program == "" {
		return ""
	}
	return printable(firstLine(askTool(ctx, program, "--version")))
}

// askTool runs a tool in plain English and returns what it prints, nothing if
// it fails.
func askTool(ctx context.Context, program string, args ...string) []byte {
	ctx, cancel := context.WithTimeout(ctx, maxAsked)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(compiler.Environ(), "LC_ALL=C", "LANGUAGE=")
	out, err := cmd.Output()
	if err != nil {
		return nil
	}
	return out
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return strings.TrimSpace(string(line))
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

// identPattern matches what a compiler writes into its assembly about itself.
var identPattern = regexp.MustCompile(`(?m)^\s*\.ident\s+"([^"\n]+)"`)

// tool is a program that says of itself what it is.
type tool struct{ path, line string }

// localTools returns the compilers, assemblers and linkers that a build with the
// given environment and words finds here.
func localTools(ctx context.Context, env, words []string) []tool {
	var all []tool
	add := func(path, line string) {
		if t := (tool{path, line}); line != "" && !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	path, _ := lookup(env, "PATH")
	names := append(toolNames(env, words), "ld.bfd", "ld.gold", "ld.lld", "ld.mold")
	for _, name := range names {
		file := findTool(name, path)
		if file == "" {
			continue
		}
		if compilerName.MatchString(filepath.Base(name)) {
			if m := identPattern.FindSubmatch(askTool(ctx, file, "-S", "-o", "-", "-x", "c", os.DevNull)); m != nil {
				add(file, printable(string(m[1])))
			}
			for _, of := range []string{"as", "ld"} {
				inner := firstLine(askTool(ctx, file, "-print-prog-name="+of))
				if !strings.Contains(inner, "/") {
					inner = findTool(inner, path)
				}
				add(inner, versionLine(ctx, inner))
			}
			continue
		}
		add(file, versionLine(ctx, file))
	}
	return all
}

// toolsOn returns the names of all compilers, assemblers and linkers on the PATH
// of env.
func toolsOn(env []string) []string {
	path, _ := lookup(env, "PATH")
	names := map[string]bool{}
	for _, dir := range filepath.SplitList(path) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if toolName.MatchString(e.Name()) {
				names[e.Name()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// compilerName matches those of the tools that compile.
var compilerName = regexp.MustCompile(`(cc|gcc|g\+\+|c\+\+|clang|clang\+\+)(-[0-9.]+)?$`)

// findTool finds a program as a shell does, by the name that it has there: some
// are another thing by another name.
func findTool(name, path string) string {
	if strings.Contains(name, "/") {
		if filepath.IsAbs(name) && lookPath(name, path) != "" {
			return name
		}
		return ""
	}
	for _, dir := range filepath.SplitList(path) {
		if file := filepath.Join(dir, name); filepath.IsAbs(dir) && lookPath(file, path) != "" {
			return file
		}
	}
	return ""
}

// telling are the variables by which compilers and the like are chosen or told
// what to do, besides those that end in FLAGS. Their values are in the manifest;
// none is a place for a secret.
var telling = []string{
	"CC", "CXX", "CPP", "CXXCPP", "AS", "LD", "AR", "NM", "RANLIB", "STRIP", "OBJCOPY", "HOSTCC", "BUILD_CC", "FC", "F77", "LEX", "YACC", "LIBS",
	"CROSS_COMPILE", "ARCH", "CONFIG_SITE", "GCC_EXEC_PREFIX", "COMPILER_PATH", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH",
	"CPLUS_INCLUDE_PATH", "LD_RUN_PATH", "LDEMULATION", "BUILD_PATH_PREFIX_MAP", "PREFIX", "prefix", "DEB_BUILD_OPTIONS", "DEB_BUILD_MAINT_OPTIONS",
}

// notTelling are flags of make and go, which say how much is done at once, or
// where.
var notTelling = []string{"MAKEFLAGS", "MFLAGS", "GNUMAKEFLAGS", "GOFLAGS"}

// tellingEnvironment returns those of the variables that are set.
func tellingEnvironment() map[string]string {
	set := map[string]string{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if value != "" && (slices.Contains(telling, name) || strings.HasSuffix(name, "FLAGS") && !slices.Contains(notTelling, name)) {
			set[name] = value
		}
	}
	if len(set) == 0 {
		return nil
	}
	return set
}

// maxScanned bounds one section, inflated, in bytes.
const maxScanned = 1 << 32

// holdPath reports whether the linked builds of targets have a path in them.
func holdPath(targets []Target, path string) (bool, error) {
	for _, t := range targets {
		original, patched, err := t.open()
		if err != nil {
			return false, err
		}
		for _, f := range []*elfobj.File{original, patched} {
			for i := range f.Sections {
				data, err := f.Sections[i].Uncompressed(maxScanned, openZstd)
				if err != nil {
					return false, err
				}
				if bytes.Contains(data, []byte(path)) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

func openZstd(r io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	return d.IOReadCloser(), nil
}
