package bundle

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// release is the manifest that the tests' patches agree with.
func release() Manifest {
	return Manifest{
		Name: "memcached-fix", Series: "default", Level: 3, Description: "Two\nlines.", CVEs: []string{"CVE-2026-1", "CVE-2026-2"},
		Consistency: specs.Consistency{NextCall: []string{"loop"}, Reason: "it never returns"},
		Created:     time.Date(2026, 11, 22, 4, 5, 6, 0, time.UTC), Spec: specs.DigestOf([]byte("spec")),
		Sources:   []Source{{"memcached-1.6.tar.gz", specs.DigestOf([]byte("source"))}, {"fix.patch", specs.DigestOf([]byte("fix"))}},
		Toolchain: []string{"GCC: (Debian 12.2.0-14) 12.2.0"},
	}
}

// patchFile makes a .kpatch file of the release, with the given code.
func patchFile(t testing.TB, a *arch.Arch, id specs.BuildID, code []byte, change ...func(*kpack.Patch)) []byte {
	t.Helper()
	m := release()
	p := &kpack.Patch{
		Arch: a, Target: kpack.Target{BuildID: id, Name: "memcached", Image: specs.Range[specs.VAddr]{Lo: 0, Hi: 0x10000}},
		Meta: kpack.Meta{
			Name: m.Name, Series: m.Series, Level: m.Level, Description: m.Description, CVEs: m.CVEs,
			Producer: m.Toolchain[0], Consistency: m.Consistency,
		},
		Sections: []kpack.Section{{Name: ".kpatch.text", Kind: kpack.Text, Align: 16, Size: uint64(len(code)), Data: code}},
	}
	for i, name := range []string{"check", "loop"} {
		lo := specs.VAddr(0x1000 * (i + 1))
		p.Symbols = append(p.Symbols, kpack.Symbol{Name: name + ".kpatch", Value: uint64(16 * i), Size: 16, Func: true})
		p.Functions = append(p.Functions, kpack.Function{
			Name: name, File: "main.c", Reason: "body changed", NextCall: name == "loop", Symbol: i,
			Original: specs.Range[specs.VAddr]{Lo: lo, Hi: lo + 64}, Room: 64, Entry: make([]byte, 32),
		})
	}
	for _, f := range change {
		f(p)
	}
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// code is n bytes of real machine code: that of this program.
func code(t testing.TB, n int) []byte {
	t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil || len(b) < n+1<<20 {
		t.Fatalf("no code to pack: %d bytes, %v", len(b), err)
	}
	const skip = 1 << 16 // headers and the like
	return b[skip:][:n]
}

const (
	idA = specs.BuildID("aa00000000000000000000000000000000000001")
	idB = specs.BuildID("bb00000000000000000000000000000000000002")
)

func twoFiles(t testing.TB) [][]byte {
	return [][]byte{
		patchFile(t, arch.AArch64, idB, bytes.Repeat([]byte{0x1f, 0x20, 0x03, 0xd5}, 64)),
		patchFile(t, arch.X86_64, idA, bytes.Repeat([]byte{0x90}, 64)),
	}
}

func encode(t testing.TB, m Manifest, files ...[]byte) []byte {
	t.Helper()
	b, err := Encode(m, files)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	files := twoFiles(t)
	data := encode(t, release(), files...)
	if !Is(data) || Is(files[0]) || Is(nil) {
		t.Error("a bundle is not told from a patch")
	}
	b, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Patches) != 2 || !bytes.Equal(b.Files[0], files[1]) || !bytes.Equal(b.Files[1], files[0]) {
		t.Fatalf("%d patches, or not the same files, or not by build-id", len(b.Patches))
	}
	want := release()
	want.Format = 1
	for i, f := range [][]byte{files[1], files[0]} {
		id, a, p := []specs.BuildID{idA, idB}[i], []string{"x86_64", "aarch64"}[i], b.Patches[i]
		if p.Target.BuildID != id || !p.Functions[1].NextCall || p.Functions[0].NextCall {
			t.Errorf("patch %d: %+v", i, p)
		}
		want.Targets = append(want.Targets, Target{
			File: string(id) + ".kpatch", Name: "memcached", BuildID: id, Arch: a, Size: int64(len(f)), Digest: specs.DigestOf(f),
			Functions: []Function{{"check", "main.c", "body changed", false}, {"loop", "main.c", "body changed", true}},
		})
	}
	if !reflect.DeepEqual(b.Manifest, want) {
		t.Errorf("manifest\n%+v\nwant\n%+v", b.Manifest, want)
	}
	if again := encode(t, b.Manifest, b.Files...); !bytes.Equal(again, data) {
		t.Error("decode and encode gives other bytes")
	}
}

func TestName(t *testing.T) {
	if got := Name("memcached-fix", 12); got != "memcached-fix-12.kpatch.tar.zst" {
		t.Error(got)
	}
}

// TestSameBytes: neither the order of files, nor the folder, the time zone or
// the number of runs shows.
func TestSameBytes(t *testing.T) {
	files := twoFiles(t)
	want := encode(t, release(), files...)
	slices.Reverse(files)
	m := release()
	m.Created = m.Created.Add(time.Millisecond).In(time.FixedZone("elsewhere", 3600))
	m.Format, m.Targets = 7, []Target{{File: "old"}}
	m.Toolchain = append(m.Toolchain, m.Toolchain...)
	t.Chdir(t.TempDir())
	for range 3 {
		if !bytes.Equal(encode(t, m, files...), want) {
			t.Fatal("other bytes for the same release")
		}
	}
	if b, err := Decode(encode(t, func() Manifest { m := release(); m.Created = time.Time{}; return m }(), files...)); err != nil || b.Manifest.Created.Unix() != 0 {
		t.Errorf("without a time: %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	nop := bytes.Repeat([]byte{0x90}, 64)
	file := func(change func(*kpack.Patch)) []byte { return patchFile(t, arch.X86_64, idA, nop, change) }
	same := file(func(*kpack.Patch) {})
	tests := map[string]struct {
		change func(*Manifest)
		files  [][]byte
		want   string
	}{
		"no patch":       {nil, nil, "0 patches"},
		"twice":          {nil, [][]byte{same, same}, "two patches for build-id " + string(idA)},
		"two for one":    {nil, [][]byte{same, file(func(p *kpack.Patch) { p.Target.Name = "other" })}, "two patches for build-id"},
		"no patch file":  {nil, [][]byte{[]byte("text")}, "patch 1 of 1: not a .kpatch file"},
		"name":           {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.Name = "x" })}, `name "x": the bundle's is "memcached-fix"`},
		"series":         {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.Series = "x" })}, `series "x"`},
		"level":          {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.Level = 4 })}, `level "4": the bundle's is "3"`},
		"description":    {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.Description = "x" })}, "description"},
		"CVEs":           {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.CVEs = nil })}, "CVEs"},
		"consistency":    {nil, [][]byte{file(func(p *kpack.Patch) { p.Meta.Consistency.Reason = "x" })}, "consistency"},
		"bundle's name":  {func(m *Manifest) { m.Name = "../x" }, [][]byte{same}, `name "../x"`},
		"bundle's level": {func(m *Manifest) { m.Level = 0 }, [][]byte{same}, "level 0"},
		"control":        {func(m *Manifest) { m.Sources[0].Name = "a\x1b[2J" }, [][]byte{same}, "control characters"},
		"before 1970":    {func(m *Manifest) { m.Created = time.Unix(-1, 0) }, [][]byte{same}, "since 1970"},
		"after tar":      {func(m *Manifest) { m.Created = time.Unix(1<<33, 0) }, [][]byte{same}, "since 1970"},
		"no reason":      {func(m *Manifest) { m.Consistency.Reason = "" }, [][]byte{same}, "neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := release()
			if tt.change != nil {
				tt.change(&m)
			}
			if _, err := Encode(m, tt.files); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestTar: what everybody has opens a bundle.
func TestTar(t *testing.T) {
	testenv.Needs(t, "tar")
	testenv.Needs(t, "zstd")
	path := filepath.Join(t.TempDir(), Name("memcached-fix", 3))
	long := specs.BuildID(strings.Repeat("cd", 64)) // more than a tar header holds
	files := append(twoFiles(t), patchFile(t, arch.X86_64, long, bytes.Repeat([]byte{0x90}, 64)))
	data := encode(t, release(), files...)
	if _, err := Decode(data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tar", "--zstd", "-tvf", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, want := range []string{"manifest.json", string(idA) + ".kpatch", string(idB) + ".kpatch", string(long) + ".kpatch"} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], " "+want) || !strings.HasPrefix(lines[i], "-rw-r--r-- 0/0 ") {
			t.Errorf("tar lists\n%s\nwant %s in line %d", out, want, i+1)
		}
	}
	if out, err := exec.Command("tar", "--zstd", "-xOf", path, string(idB)+".kpatch").Output(); err != nil || !bytes.Equal(out, files[0]) {
		t.Errorf("tar extracts %d bytes, %v", len(out), err)
	}
}

// TestShrinks: code is what bundles mostly hold.
func TestShrinks(t *testing.T) {
	for _, n := range []int{64 << 10, 1 << 20} {
		file := patchFile(t, arch.X86_64, idA, code(t, n))
		data := encode(t, release(), file)
		percent := 100 * len(data) / len(file)
		t.Logf("%d bytes become %d: %d %%", len(file), len(data), percent)
		if percent > 60 {
			t.Errorf("%d bytes become %d: %d %%, want at most 60", len(file), len(data), percent)
		}
	}
}

// BenchmarkDecode opens and checks a bundle with 1 MB of code.
func BenchmarkDecode(b *testing.B) {
	data := encode(b, release(), patchFile(b, arch.X86_64, idA, code(b, 1<<20)))
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	file := patchFile(b, arch.X86_64, idA, code(b, 1<<20))
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, err := Encode(release(), [][]byte{file}); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzDecode feeds whole bundles, and archives that are compressed here, so that
// what is inside is reached, too. Inputs are long: -fuzzminimizetime 20x.
func FuzzDecode(f *testing.F) {
	data := encode(f, release(), twoFiles(f)...)
	content, err := decompress(data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, false)
	f.Add(content, true)
	f.Add(zstdMagic, false)
	f.Add(binary.LittleEndian.AppendUint64(nil, 0x184D2A50), false)
	f.Add([]byte(nil), true)
	f.Add(bomb(maxContent, 4), false)
	f.Add(bomb(1, 9), false)
	f.Add(reserved(), false)
	f.Add(content[:512], true)
	f.Add(bytes.ReplaceAll(content, []byte("ustar\x00"), []byte("ustar ")), true)
	f.Fuzz(func(t *testing.T, in []byte, plain bool) {
		if plain {
			in = encoder().EncodeAll(in, nil)
		}
		b, err := Decode(in)
		if (b == nil) == (err == nil) {
			t.Fatalf("bundle %v, error %v", b, err)
		}
		if b == nil {
			return
		}
		again, err := Encode(b.Manifest, b.Files)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatal(err)
		}
	})
}
