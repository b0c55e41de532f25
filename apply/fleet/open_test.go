package fleet

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// bundleWith returns a bundle with a patch for idA of n bytes of machine code,
// which is this program's.
func bundleWith(b *testing.B, n int) []byte {
	b.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	const skip = 1 << 16 // headers and the like
	if err != nil || len(exe) < skip+n {
		b.Fatalf("no code to pack: %d bytes, %v", len(exe), err)
	}
	p := &kpack.Patch{
		Arch: arch.X86_64, Target: kpack.Target{BuildID: idA, Name: "prog", Image: specs.Range[specs.VAddr]{Lo: 0, Hi: 0x10000}},
		Meta:     kpack.Meta{Name: "prog", Series: specs.DefaultSeries, Level: 1},
		Sections: []kpack.Section{{Name: ".kpatch.text", Kind: kpack.Text, Align: 16, Size: uint64(n), Data: exe[skip:][:n]}},
		Symbols:  []kpack.Symbol{{Name: "check.kpatch", Size: 16, Func: true}},
		Functions: []kpack.Function{{Name: "check", File: "main.c", Reason: "body changed",
			Original: specs.Range[specs.VAddr]{Lo: 0x1000, Hi: 0x1040}, Room: 64, Entry: make([]byte, 32)}},
	}
	file, err := p.Encode()
	if err != nil {
		b.Fatal(err)
	}
	data, err := bundle.Encode(bundle.Manifest{Name: "prog", Series: specs.DefaultSeries, Level: 1, Created: time.Unix(0, 0).UTC()}, [][]byte{file})
	if err != nil {
		b.Fatal(err)
	}
	return data
}

// BenchmarkOpen is what a host does with a bundle of 1 MB that it has fetched:
// it verifies signature, length and digest, unpacks it and checks the patches.
func BenchmarkOpen(b *testing.B) {
	data := bundleWith(b, 5<<19)
	dir, keys := filepath.Join(b.TempDir(), "registry"), filepath.Join(b.TempDir(), "keys")
	root, err := registry.Init(b.Context(), registry.InitOptions{URL: dir, Keys: keys})
	if err != nil {
		b.Fatal(err)
	}
	publisher, err := registry.Open(dir, keys)
	if err != nil {
		b.Fatal(err)
	}
	if err := publisher.Publish(b.Context(), registry.Release{
		Package: "prog", Series: specs.DefaultSeries, Level: 1, BuildIDs: []specs.BuildID{idA}, File: bundle.Name("prog", 1), Bundle: data,
	}); err != nil {
		b.Fatal(err)
	}
	c, err := registry.NewClient(registry.ClientOptions{URL: dir, Root: root, State: filepath.Join(b.TempDir(), "state")})
	if err != nil {
		b.Fatal(err)
	}
	p := newPull(Options{Registry: c}, machine{})
	releases := p.releases(p.ask(b.Context(), []specs.BuildID{idA}))
	if len(releases) != 1 {
		b.Fatal(p.report.Errors)
	}
	for b.Loop() {
		if patches, err := p.fetch(b.Context(), releases[0]); err != nil || patches[idA] == nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(data))/1e6, "MB")
}
