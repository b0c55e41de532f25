package pipeline

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/specfile"
	"github.com/fother/fother/specs/testenv"
)

// rebuilt is a release that one party has made, and the place of another.
type rebuilt struct {
	*places
	spec specs.Spec
	o    Options // of the one
}

const rebuiltSpec = "name: levels\nsource: src\npatches: [fix1.patch]\nlevel: 1\ncves: [CVE-2026-4321]\nbuild: [\"gcc -g -O2 -Wl,--build-id -o levels a.c main.c\"]\n"

// newRebuilt makes a release with debug data, so that its path is in it, and
// with the time in it, which is that of the newest file.
func newRebuilt(t *testing.T) *rebuilt {
	t.Helper()
	t.Setenv("SOURCE_DATE_EPOCH", "")
	os.Unsetenv("SOURCE_DATE_EPOCH")
	r := &rebuilt{places: newPlaces(t)}
	for _, place := range []string{"one", "other"} {
		r.put(place, "src/a.c", levelsC)
		r.put(place, "src/main.c", askMain+"const char *when(void) { return __DATE__ __TIME__; }\n")
		r.put(place, "fix1.patch", "--- a/a.c\n+++ b/a.c\n@@ -4,3 +4,3 @@\n {\n-\treturn 0;\n+\treturn 10;\n }\n")
		r.put(place, "spec.yaml", rebuiltSpec)
	}
	for name, at := range map[string]int64{"one/src/a.c": 1_600_000_000, "one/src/main.c": 1_700_000_000, "other/src/a.c": 1_000_000_000, "other/src/main.c": 1_000_000_000} {
		if err := os.Chtimes(r.path(name), time.Unix(at, 0), time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if r.spec, err = specfile.Read(r.path("one/spec.yaml")); err != nil {
		t.Fatal(err)
	}
	r.o = Options{
		Work: r.path("one/made"), Shim: r.path("one/fother-cc"), Spec: r.path("one/spec.yaml"),
		Registry: r.path("registry"), Keys: r.path("one/keys"),
	}
	if _, err := Make(t.Context(), r.spec, r.o); err != nil {
		t.Fatal(err)
	}
	return r
}

// bundle returns the path of the one's bundle, and the bundle.
func (r *rebuilt) bundle() (string, *bundle.Bundle) {
	r.t.Helper()
	path := FolderOf(r.spec, r.o).Bundle(r.spec)
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := bundle.Decode(data)
	if err != nil {
		r.t.Fatal(err)
	}
	return path, b
}

// file leaves another bundle for the other party.
func (r *rebuilt) file(m bundle.Manifest, files ...[]byte) string {
	r.t.Helper()
	data, err := bundle.Encode(m, files)
	if err != nil {
		r.t.Fatal(err)
	}
	path := r.path("changed.kpatch.tar.zst")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// TestRebuild: another user in another folder makes a bundle once more that
// has the path of its build in it, whether that path is there or not.
func TestRebuild(t *testing.T) {
	needsNamespaces(t)
	r := newRebuilt(t)
	path, b := r.bundle()
	if b.Manifest.Build.Path != r.path("one/made/build/levels/tree") || b.Manifest.Created.Unix() != 1_700_000_000 {
		t.Errorf("built in %s at %s", b.Manifest.Build.Path, b.Manifest.Created)
	}
	copyFile(t, path, r.path("published"), 0o644)
	rebuild := func(how, want string) {
		t.Helper()
		out, err := r.run("other", true, rebuildFrom+"="+r.path("published"))
		if err != nil || !strings.Contains(out, "rebuild: the same") || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", how, err, out)
		}
	}
	rebuild("the folder is another's", "in a mount namespace")
	if err := os.Rename(r.path("one"), r.path("gone")); err != nil {
		t.Fatal(err)
	}
	rebuild("the folder is not there", "in a mount namespace")
	// A path whose first folder is not there. The BuildID has the path in it, so
	// that this is another program.
	m := b.Manifest
	m.Build.Path = "/" + filepath.Base(r.dir) + "/build/levels/tree"
	out, err := r.run("other", true, rebuildFrom+"="+r.file(m, b.Files...))
	if err == nil || !strings.Contains(out, "in a mount namespace") || !strings.Contains(out, "the original build came out in another way") || strings.Contains(out, "manifest.json") {
		t.Errorf("at a path from the root on: %v\n%s", err, out)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	rebuild("the folder can be made", "")
	for _, left := range []string{"one", "other/elsewhere/levels-1", "other/elsewhere/.rebuild"} {
		if _, err := os.Lstat(r.path(left)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", left, err)
		}
	}
	if found, err := filepath.Glob(r.path("other/elsewhere/.place-*")); err != nil || len(found) > 0 {
		t.Errorf("%q is left: %v", found, err)
	}
}

// needsNamespaces skips the test where users may have no mount namespaces.
func needsNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		testenv.Skip(t, "a mount namespace cannot be made: "+err.Error())
	}
}

// TestRebuildInputs: what a bundle was not made from is named before anything is
// built.
func TestRebuildInputs(t *testing.T) {
	r := newRebuilt(t)
	_, b := r.bundle()
	m := b.Manifest
	m.Spec[0]++
	m.Sources = slices.Clone(m.Sources)
	m.Sources[0].Digest[0]++
	m.Sources[1].Name = "other.patch"
	m.Toolchain = append(slices.Clone(m.Toolchain), "GCC: (Other 99) 99.1")
	m.Build.Environment = map[string]string{"CFLAGS": "-O3"}
	t.Setenv("CFLAGS", "-O1")
	err := Rebuild(t.Context(), r.spec, r.o, r.file(m, b.Files...))
	if !is[*OtherInputsError](err) {
		t.Fatal(err)
	}
	for _, want := range []string{
		"the spec, spec.yaml: ", "source tree: ", "source 2: fix1.patch here, the bundle was made with other.patch",
		"the bundle was made with GCC: (Other 99) 99.1; here is ", `CFLAGS="-O1" here, the bundle was made with CFLAGS="-O3"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "fix1.patch: ") || strings.Count(err.Error(), "toolchain: ") != 1 {
		t.Error(err)
	}
	m = b.Manifest
	m.Build.Path = "/usr/src"
	if err := Rebuild(t.Context(), r.spec, r.o, r.file(m, b.Files...)); err == nil || !strings.Contains(err.Error(), "/usr/src") {
		t.Error(err)
	}
	other := r.spec
	other.Level = 2
	if err := Rebuild(t.Context(), other, r.o, r.file(b.Manifest, b.Files...)); err == nil || !strings.Contains(err.Error(), "level 2") {
		t.Error(err)
	}
}

// TestRebuildDiffers: a bundle with other code than its source makes is not
// signed, and the error names file, section and function.
func TestRebuildDiffers(t *testing.T) {
	r := newRebuilt(t)
	_, b := r.bundle()
	evil, err := kpack.Decode(b.Files[0])
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(evil.Sections, func(s kpack.Section) bool { return s.Kind == kpack.Text })
	at := bytes.IndexByte(evil.Sections[i].Data, 10) // what the function returns
	if at < 0 {
		t.Fatalf("no such constant in % x", evil.Sections[i].Data)
	}
	evil.Sections[i].Data = slices.Clone(evil.Sections[i].Data)
	evil.Sections[i].Data[at] = 66
	file, err := evil.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// A compiler that is here, by a name that nothing mentions, and was not used.
	m := b.Manifest
	m.Toolchain = append(slices.Clone(m.Toolchain), "GCC: (Odd) 99")
	slices.Sort(m.Toolchain)
	r.put("tools", "odd-gcc-99", "#!/bin/sh\necho '\t.ident\t\"GCC: (Odd) 99\"'\n")
	r.sh("tools", "chmod 0755 odd-gcc-99")
	t.Setenv("PATH", os.Getenv("PATH")+":"+r.path("tools"))
	err = Rebuild(t.Context(), r.spec, r.o, r.file(m, file))
	if !is[*DifferentError](err) {
		t.Fatal(err)
	}
	for _, want := range []string{string(b.Patches[0].Target.BuildID) + ".kpatch (levels): ", "function level: the new code differs", "manifest.json: toolchain: ",
		"section " + evil.Sections[i].Name + ": other bytes from offset "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %q", err, want)
		}
	}
}

// secondKey gives the other party a key for the package, and makes hosts ask
// for its signature too.
func (r *rebuilt) secondKey() {
	t := r.t
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(Root(r.o))
	if err != nil {
		t.Fatal(err)
	}
	r.put("other", "keys/root.json", string(root))
	r.put("other", "keys/package.levels.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	r.sh("other", "chmod 0700 keys; chmod 0600 keys/package.levels.pem")
	p, err := openRegistry(r.o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.MakeKey(t.Context(), "package.levels", nil); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(r.o.Keys, "package.levels.pem")
	data, err := os.ReadFile(own)
	if err == nil {
		err = os.WriteFile(own, append(data, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = openRegistry(r.o); err == nil {
		err = p.Rotate(t.Context(), registry.Rotation{Name: "package.levels", Add: true, Threshold: 2})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCountersigned: hosts refuse a patch that asks for two signatures, until
// another user has made its bundle once more and signed it too.
func TestCountersigned(t *testing.T) {
	needsNamespaces(t)
	r := newRebuilt(t)
	if err := InitRegistry(t.Context(), r.o, InitOptions{}); err != nil {
		t.Fatal(err)
	}
	r.secondKey()
	if err := Publish(t.Context(), r.spec, r.o); err != nil {
		t.Fatal(err)
	}
	a := ask(t, filepath.Join(FolderOf(r.spec, r.o).Original(), "levels"))
	state := filepath.Join(t.TempDir(), "state")
	pull := func(exit int, answer, signed string) string {
		t.Helper()
		out := fother(t, exit, "pull", "--registry", r.o.Registry, "--root", Root(r.o), "--state", state, "-p", a.pid())
		if got := a.answer(""); got != answer {
			t.Errorf("answer %s, want %s\n%s", got, answer, out)
		}
		var list bytes.Buffer
		if err := ListRegistry(t.Context(), &list, r.o); err != nil || !strings.Contains(list.String(), signed) {
			t.Errorf("list: %v\n%s", err, &list)
		}
		return out
	}
	if out := pull(1, "0", " 1 of 2 "); !strings.Contains(out, "signed by 1 of 2") || !strings.Contains(out, "hint: whoever holds another key of this package has to rebuild") {
		t.Errorf("refused:\n%s", out)
	}
	r.sh(".", "chmod -R a+rwX registry")
	if out, err := r.run("other", true, rebuildFrom+"="+r.o.Registry); err != nil || !strings.Contains(out, "has 2 of 2 signatures: hosts take it") {
		t.Errorf("%v\n%s", err, out)
	}
	pull(0, "10", " 2 of 2 ")
	if out, err := r.run("other", true, rebuildFrom+"="+r.o.Registry); err != nil || !strings.Contains(out, "signed before") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(r.path("other/src/a.c"), []byte(strings.Replace(levelsC, "return 0", "return  0", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := r.run("other", true, rebuildFrom+"="+r.o.Registry); err == nil || !strings.Contains(out, "source tree: ") || !strings.Contains(out, "hint: use the spec and sources") {
		t.Errorf("%v\n%s", err, out)
	}
	r.fetched()
}

// fetched checks what a reviewer gets.
func (r *rebuilt) fetched() {
	t := r.t
	t.Helper()
	to := t.TempDir()
	paths, err := FetchRelease(t.Context(), r.o, "levels-1", to)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		got[filepath.Base(p)] = string(data)
	}
	run := newRun(r.spec, r.o)
	release, err := run.release()
	if err != nil {
		t.Fatal(err)
	}
	one, err := run.attachments(t.Context(), release)
	if err != nil {
		t.Fatal(err)
	}
	if two, err := run.attachments(t.Context(), release); err != nil || !reflect.DeepEqual(one, two) {
		t.Errorf("made again, what lies beside a bundle is another: %v", err)
	}
	run.o.Builder = "no URI"
	if _, err := run.attachments(t.Context(), release); err == nil {
		t.Error("a builder without a URI")
	}
	path, _ := r.bundle()
	own, err := os.ReadFile(path)
	if err != nil || got["levels-1.kpatch.tar.zst"] != string(own) {
		t.Errorf("another bundle, %v", err)
	}
	report, err := os.ReadFile(FolderOf(r.spec, r.o).Report())
	if err != nil || got["report.json"] != string(report) {
		t.Errorf("another report, %v:\n%s", err, got["report.json"])
	}
	for name, want := range map[string]string{
		"levels-1.kpatch.tar.zst.sig": `"payloadType":"application/vnd.in-toto+json"`, "provenance.intoto.json": `"payloadType":"application/vnd.in-toto+json"`,
		"openvex.intoto.json": `"payloadType":"application/vnd.in-toto+json"`, "openvex.json": `"name": "CVE-2026-4321"`,
	} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s:\n%s", name, got[name])
		}
	}
	if len(got) != 6 {
		t.Errorf("%d files", len(got))
	}
	if _, err := FetchRelease(t.Context(), r.o, "levels-2", to); !errors.Is(err, registry.ErrNotFound) {
		t.Error(err)
	}
}
