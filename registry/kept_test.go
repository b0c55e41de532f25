package registry

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/fother/fother/specs"
)

func TestPruneKeepsWhatIsUsed(t *testing.T) {
	kept, err := openCache(t.TempDir(), "id")
	if err != nil {
		t.Fatal(err)
	}
	c, dir := &Client{cache: kept}, kept.path(bundlesDir)
	entry := func(content string, length int64) Entry {
		e := Entry{Length: length, Digest: specs.DigestOf([]byte(content))}
		for _, name := range []string{e.Digest.String(), e.Digest.String() + ".sig"} {
			if err := c.cache.put(bundlesDir+"/"+name, []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		return e
	}
	used, large, small := entry("used", 100), entry("large", maxKept), entry("small", maxKept-100)
	entry("unused", 100)
	if err := c.Prune([]Entry{used, used, large, small}); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{used, small} { // together they are as much as may be kept
		if c.cache.get(bundlesDir+"/"+e.Digest.String(), maxSignature) == nil {
			t.Errorf("the bundle of %d bytes is gone", e.Length)
		}
	}
	if len(names) != 4 {
		t.Errorf("%d files are left: want 4: %v", len(names), names)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Prune(nil); err == nil {
		t.Error("a cache that is not there is pruned")
	}
}
