package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// showOut runs fother show and checks its exit status.
func showOut(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, got := fother(append([]string{"show"}, args...)...)
	if got != code {
		t.Errorf("fother show %v: exit %d: want %d\n%s%s", args, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// wordy is a patch that says everything that a patch can say.
func wordy(t *testing.T, prog *program) *kpack.Patch {
	t.Helper()
	p := prog.build(t, "default", 7, "answer", 1).Patch
	p.Meta.Description = "Two\nlines."
	p.Meta.CVEs = []string{"CVE-2026-1", "CVE-2026-2"}
	p.Meta.Producer = "GCC: (GNU) 12"
	p.Sections = append(p.Sections,
		kpack.Section{Name: ".kpatch.rodata", Kind: kpack.ROData, Align: 1, Size: 3, Data: []byte("abc")},
		kpack.Section{Name: ".kpatch.data", Kind: kpack.Data, Align: 1, Size: 5, Data: []byte("abcde")},
		kpack.Section{Name: ".kpatch.bss", Kind: kpack.BSS, Align: 1, Size: 70})
	p.Symbols = append(p.Symbols, kpack.Symbol{Name: "strlen", Binding: kpack.Imported, Func: true, Import: &kpack.Import{Version: "GLIBC_2.2.5"}})
	return p
}

func TestShowPatch(t *testing.T) {
	prog := fixture(t)
	path := filepath.Join(t.TempDir(), "x.kpatch")
	write(t, path, built{wordy(t, prog)}.encode(t))
	out, _ := showOut(t, 0, path)
	for _, want := range []string{
		path + "\n", "patch        ", "release      the-fix, series default, level 7\n",
		"description  Two\n               lines.\n", "fixes        CVE-2026-1\n               CVE-2026-2\n",
		"prog (x86_64), build-id " + string(prog.id), "code 6, constants 3, data 5, zeroed data 70\n",
		"function   answer (prog.c), 6 bytes instead of ", ": test\n", "import     strlen@GLIBC_2.2.5\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var all []shown
	out, _ = showOut(t, 0, "--json", path)
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 || len(all[0].Patches) != 1 {
		t.Fatalf("%v, %s", err, out)
	}
	c := all[0].Patches[0]
	if all[0].Kind != "patch" || all[0].Manifest.Level != 7 || c.Memory != (memorySizes{6, 3, 5, 70}) || len(c.Functions) != 1 || c.Functions[0].Reason != "test" || c.Producer == "" {
		t.Errorf("%+v", all[0])
	}
}

func TestShowBundleAndSignatures(t *testing.T) {
	prog := fixture(t)
	s, other := newShelf(t), newShelf(t)
	s.publishPatch(wordy(t, prog))
	out, _ := showOut(t, 0, s.bundle)
	for _, want := range []string{"bundle       ", "created      2001-09-09T01:46:40Z", "toolchain    GCC: (GNU) 12", "  size     "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "signature") || strings.Contains(out, "registry") {
		t.Errorf("nobody signed and nobody was asked:\n%s", out)
	}

	// In the registry the signature lies beside it.
	inside, err := filepath.Glob(filepath.Join(s.dir, "bundles", "*", "*.zst"))
	if err != nil || len(inside) != 1 {
		t.Fatalf("%v, %v", inside, err)
	}
	var all []shown
	out, _ = showOut(t, 0, "--json", inside[0])
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all[0].Signatures) != 1 || len(all[0].Signatures[0].KeyID) != 64 {
		t.Fatalf("%v, %s", err, out)
	}
	key := all[0].Signatures[0].KeyID
	if out, _ = showOut(t, 0, inside[0]); !strings.Contains(out, "signature    key "+key) || !strings.Contains(out, "not checked") {
		t.Errorf("%s", out)
	}

	// Whether a registry has it: the bundle, and the patch that is in it.
	patch := filepath.Join(t.TempDir(), "one.kpatch")
	write(t, patch, built{wordy(t, prog)}.encode(t))
	signed := "lists it for package the-fix, signed by key " + key
	for _, c := range []struct {
		shelf *shelf
		file  string
		want  string
	}{
		{s, s.bundle, signed}, {s, patch, signed}, {other, s.bundle, "does not list this file"}, {other, patch, "does not list this file"},
	} {
		if out, _ := showOut(t, 0, "--registry", c.shelf.dir, "--root", c.shelf.root, c.file); !strings.Contains(out, c.want) {
			t.Errorf("no %q in\n%s", c.want, out)
		}
	}
	// The same release with other bytes is not what the registry has.
	p := wordy(t, prog)
	p.Meta.Description = "another"
	write(t, patch, built{p}.encode(t))
	if out, _ := showOut(t, 0, "--registry", s.dir, "--root", s.root, patch); !strings.Contains(out, "does not list this file") {
		t.Errorf("%s", out)
	}
	if _, stderr := showOut(t, 1, "--registry", s.dir, "--root", other.root, patch); !strings.Contains(stderr, "registry "+s.dir) {
		t.Errorf("%s", stderr)
	}
}

func TestShowBadFiles(t *testing.T) {
	prog := fixture(t)
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		write(t, filepath.Join(dir, name), data)
		return filepath.Join(dir, name)
	}
	good := file("good.kpatch", prog.patch(t, "default", 1))
	junk := file("junk.kpatch", []byte("junk"))
	out, stderr := showOut(t, 1, junk, good)
	if !strings.Contains(stderr, "error: "+junk) || !strings.Contains(out, "release      the-fix") {
		t.Errorf("%s%s", out, stderr)
	}
	var all []shown
	if out, _ := showOut(t, 1, "--json", junk, good); json.Unmarshal([]byte(out), &all) != nil || len(all) != 2 || all[0].Exit != 1 || all[0].Error == "" || all[1].Error != "" {
		t.Errorf("%s", out)
	}
	if _, stderr := showOut(t, 1, file("kpatch.bin", []byte("KPATCH1\x00\x00"))); !strings.Contains(stderr, "LibCare's own format") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("%s", stderr)
	}
	file("good.kpatch.sig", []byte(`{"payloadType": "", "signatures": []}`))
	if _, stderr := showOut(t, 1, good); !strings.Contains(stderr, "good.kpatch.sig: not a signature") {
		t.Errorf("%s", stderr)
	}
}

func TestShowNamesTheRegistryOnce(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root.json")
	write(t, root, []byte("{}"))
	_, out := showOut(t, exitError, "--registry", dir, "--root", root, root)
	if strings.Count(out, "registry "+dir) != 1 {
		t.Errorf("want the registry named once: %s", out)
	}
}

func TestShowIsSafeForTerminals(t *testing.T) {
	prog := fixture(t)
	dir := t.TempDir()
	p := wordy(t, prog)
	evil := "\x1b]0;x\x07 \u202e\u009b31m\n  signature    key trusted"
	// A patch cannot hold control characters, but the marks that turn text.
	const turned = "\u202edetsurt"
	p.Meta.CVEs, p.Meta.Name, p.Functions[0].Reason, p.Meta.Description = []string{turned}, turned, turned, turned
	path := filepath.Join(dir, "a\x1bb.kpatch")
	write(t, path, built{p}.encode(t))
	key, _ := json.Marshal(map[string]any{"payloadType": "x", "signatures": []map[string]string{{"keyid": evil}}})
	write(t, path+".sig", key)
	out, _ := showOut(t, 0, path)
	for _, bad := range []string{"\x1b", "\x07", "\u202e", "\u009b", "\n  signature    key trusted", "\ndetsurt"} {
		if strings.Contains(out, bad) {
			t.Errorf("%q reaches the terminal:\n%q", bad, out)
		}
	}
	if !strings.Contains(out, `\x1b]0;x`) || !strings.Contains(out, `\u202edetsurt`) {
		t.Errorf("%s", out)
	}
}

func FuzzSignatures(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"a","sig":"eA=="}]}`))
	f.Add([]byte(`{"payloadType":"x","signatures":null}`))
	f.Add([]byte("junk"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseSignatures("x.sig", data)
		if err == nil && len(all) > maxSignatures || err != nil && all != nil {
			t.Errorf("%d signatures, %v", len(all), err)
		}
	})
}

func TestContentsOfLongFunctions(t *testing.T) {
	prog := fixture(t)
	p := wordy(t, prog)
	p.Functions[0].Cold = specs.Range[specs.VAddr]{Lo: 0x100, Hi: 0x110}
	whole := contentsOf(p, 1).Functions[0].Original
	if p.Functions[0].Cold = (specs.Range[specs.VAddr]{}); contentsOf(p, 1).Functions[0].Original != whole-16 {
		t.Error("the cold part is not counted")
	}
}
