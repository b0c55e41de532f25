package pipeline

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

const epochName = "SOURCE_DATE_EPOCH"

// buildDepends returns what the two builds depend on. Next to what the spec
// names, that is the environment as far as builds are known to read it, and
// the programs that make code, by their content.
func (r *run) buildDepends() (depends, error) {
	d := depends{}
	s := r.spec
	if err := d.addJSON("what the spec says of the build", struct{ Configure, Build, Install, Env []string }{s.Configure, s.Build, s.Install, s.Env}); err != nil {
		return nil, err
	}
	d.add("the place of the work folder", string(r.folder))
	if err := r.sourceDepends(d); err != nil {
		return nil, err
	}
	for i, p := range s.Patches {
		digest, err := digestFile(p)
		if err != nil {
			return nil, err
		}
		d[patchName(i, p)] = digest
	}
	r.environDepends(d)
	if err := toolDepends(d, r.env(), r.words()); err != nil {
		return nil, err
	}
	shim, err := digestFile(r.o.Shim)
	if err != nil {
		return nil, err
	}
	d["the program fother-cc"] = shim
	return d, d.addVersion()
}

func (d depends) addJSON(name string, v any) error {
	data, err := json.Marshal(v)
	d[name] = specs.DigestOf(data)
	return err
}

func patchName(i int, path string) string {
	return fmt.Sprintf("patch %d, %s,", i+1, filepath.Base(path))
}

// sourceDepends adds the source.
func (r *run) sourceDepends(d depends) error {
	s := r.spec
	switch {
	case s.Archive == "":
		t, err := r.readTree()
		if err != nil {
			return err
		}
		d["the source tree"] = t.digest
		d.add("the commit that is checked out", commit(s.Dir))
		if r.epoch() == "" {
			d.add("the time of the source", strconv.FormatInt(r.treeTime(t), 10))
		}
	case filepath.IsAbs(s.Archive):
		digest, err := digestFile(s.Archive)
		if err != nil {
			return err
		}
		d["the source archive"] = digest
		d.add("the checksum of the source", s.Checksum)
	default:
		d.add("the address of the source", s.Archive)
		d.add("the checksum of the source", s.Checksum)
	}
	return nil
}

// readTree reads the source tree of the spec. The spec's own file, which may
// lie in it, is no part of it, and neither is what is ours.
func (r *run) readTree() (treeState, error) {
	skip := r.ours()
	if r.o.Spec != "" {
		path, err := filepath.Abs(r.o.Spec)
		if err != nil {
			return treeState{}, err
		}
		skip = append(skip, path)
	}
	return digestTree(r.spec.Dir, skip...)
}

// ours are the folders that are no part of a source tree, though they may lie
// in it.
func (r *run) ours() []string {
	return slices.DeleteFunc([]string{r.o.Work, r.o.home, r.o.Registry, r.o.Keys}, func(dir string) bool { return dir == "" || registry.IsAddress(dir) })
}

// env returns the environment of the build's commands.
func (r *run) env() []string { return append(compiler.Environ(), r.spec.Env...) }

// lookup returns the value of a variable in an environment: the last one.
func lookup(env []string, name string) (value string, found bool) {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value, found = v, true
		}
	}
	return value, found
}

// epoch returns the SOURCE_DATE_EPOCH that was given, or "".
func (r *run) epoch() string {
	if m := r.o.repeats; m != nil {
		return strconv.FormatInt(m.Created.Unix(), 10)
	}
	v, _ := lookup(r.env(), epochName)
	return v
}

// treeTime is the SOURCE_DATE_EPOCH of a source tree, if none was given: the
// time of the last commit that changed the tree, if it is in a git checkout,
// so that every clone has the same; else that of the newest file.
func (r *run) treeTime(t treeState) int64 {
	if r.spec.Dir != "" {
		out, err := exec.Command("git", "-C", r.spec.Dir, "log", "-1", "--format=%ct", "--", ".").Output()
		if n, e := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); err == nil && e == nil && n >= 0 {
			return n
		}
	}
	return t.newest
}

// words are the words of the build's commands.
func (r *run) words() []string {
	var words []string
	for _, c := range slices.Concat(r.spec.Configure, r.spec.Build, r.spec.Install) {
		words = append(words, strings.FieldsFunc(c, func(r rune) bool { return strings.ContainsRune(" \t\n;|&()'\"=", r) })...)
	}
	return words
}

// readByBuilds are the variables that compilers, linkers, make and the usual
// build systems read, besides those that *FLAGS and the prefixes below match.
// Sources: gcc(1) "ENVIRONMENT", ld(1) "ENVIRONMENT", GNU make manual
// "Variables Used by Implicit Rules", autoconf manual "Preset Output
// Variables", reproducible-builds.org.
var readByBuilds = []string{
	"PATH", "CC", "CXX", "CPP", "CXXCPP", "AS", "LD", "AR", "NM", "RANLIB", "STRIP", "OBJCOPY", "OBJDUMP", "READELF", "HOSTCC", "BUILD_CC",
	"FC", "F77", "LEX", "YACC", "LIBS", "CROSS_COMPILE", "ARCH", "CONFIG_SITE", "CONFIG_SHELL", "MAKEFILES", "DESTDIR", "PREFIX", "prefix",
	"GCC_EXEC_PREFIX", "COMPILER_PATH", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LD_RUN_PATH", "LD_LIBRARY_PATH",
	"LD_PRELOAD", "LDEMULATION", epochName, "BUILD_PATH_PREFIX_MAP", "LANG", "LANGUAGE", "TZ",
}

var readByBuildsPrefixes = []string{"LC_", "CMAKE_", "PKG_CONFIG", "MESON", "DEB_", "KPATCH_", "KPCC", "ac_cv_", "CCACHE_"}

var variable = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// environDepends adds the variables that builds read, and those that the
// spec's commands name.
func (r *run) environDepends(d depends) {
	var named []string
	for _, c := range slices.Concat(r.spec.Configure, r.spec.Build, r.spec.Install) {
		for _, m := range variable.FindAllStringSubmatch(c, -1) {
			named = append(named, m[1])
		}
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if slices.Contains(readByBuilds, name) || strings.HasSuffix(name, "FLAGS") || slices.Contains(named, name) ||
			slices.ContainsFunc(readByBuildsPrefixes, func(p string) bool { return strings.HasPrefix(name, p) }) {
			d.add("the environment variable "+name, value)
		}
	}
}

// toolName matches the names of compilers, assemblers and linkers.
var toolName = regexp.MustCompile(`^([A-Za-z0-9_.]+-)*(cc|gcc|g\+\+|c\+\+|cpp|clang|clang\+\+|as|ld|ld\.bfd|ld\.gold|ld\.lld|ld\.mold)(-[0-9.]+)?$`)

// toolNames returns the compilers, assemblers and linkers that a build uses
// without being told, and those that env or words name.
func toolNames(env, words []string) []string {
	names := []string{"cc", "gcc", "g++", "c++", "clang", "clang++", "as", "ld"}
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); slices.Contains([]string{"CC", "CXX", "CPP", "AS", "LD", "HOSTCC", "BUILD_CC"}, name) {
			words = append(words, strings.Fields(value)...)
		}
	}
	for _, w := range words {
		if toolName.MatchString(filepath.Base(w)) {
			names = append(names, w)
		}
	}
	return names
}

// toolDepends adds the tools of toolNames that are on the PATH of env.
func toolDepends(d depends, env, words []string) error {
	path, _ := lookup(env, "PATH")
	for _, name := range toolNames(env, words) {
		file := lookPath(name, path)
		if file == "" {
			continue
		}
		digest, err := digestProgram(file)
		if err != nil {
			return err
		}
		d["the program "+file] = digest
	}
	return nil
}

// lookPath finds a program in the folders of path as a shell does, and returns
// the file that it is in the end, or "".
func lookPath(name, path string) string {
	files := []string{name}
	if !strings.Contains(name, "/") {
		files = nil
		for _, dir := range filepath.SplitList(path) {
			files = append(files, filepath.Join(dir, name))
		}
	}
	for _, f := range files {
		if !filepath.IsAbs(f) {
			continue // it depends on the folder in which the command runs
		}
		if f, err := exec.LookPath(f); err == nil {
			if real, err := filepath.EvalSymlinks(f); err == nil {
				return real
			}
		}
	}
	return ""
}

// programs remembers digests of programs.
var programs sync.Map // programKey -> specs.Digest

type programKey struct {
	path   string
	inode  uint64
	size   int64
	change unix.Timespec // of the status, which every change of content sets
}

func digestProgram(path string) (specs.Digest, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return specs.Digest{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	key := programKey{path, st.Ino, st.Size, st.Ctim}
	if d, ok := programs.Load(key); ok {
		return d.(specs.Digest), nil
	}
	d, err := digestFile(path)
	if err == nil {
		programs.Store(key, d)
	}
	return d, err
}

const versionName = "the version of Fother"

// addVersion adds what Fother's own code is: the version of a released module,
// else the digest of this program.
func (d depends) addVersion() error {
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := released(info); v != "" {
			d.add(versionName, v)
			return nil
		}
	}
	digest, err := self()
	d[versionName] = digest
	return err
}

// self returns the digest of this program. Its file may meanwhile have been
// replaced by that of another mage.
var self = sync.OnceValues(func() (specs.Digest, error) { return digestFile("/proc/self/exe") })

// released returns version and hash of this module in a program that was built
// with a release of it. A checkout has none: its version stays while its code
// changes.
func released(info *debug.BuildInfo) string {
	for _, m := range info.Deps {
		if m.Path == module && m.Replace == nil && m.Sum != "" {
			return m.Version + " " + m.Sum
		}
	}
	return ""
}

// assemblerDepends adds the assemblers that packing may run.
func assemblerDepends(d depends) error {
	words := []string{}
	for _, a := range arch.All {
		words = append(words, a.Tuple+"-as")
	}
	return toolDepends(d, []string{"PATH=" + os.Getenv("PATH")}, words)
}
