package corpus

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/magefiles/internal/tools"
)

func TestCases(t *testing.T) {
	all := Cases()
	if len(all) != 30 {
		t.Errorf("%d cases, want 30", len(all))
	}
	seen := map[string]bool{}
	for _, c := range all {
		if seen[c.ID] || c.K == 0 || c.Version == "" || c.Patch == "" || len(c.Outputs()) == 0 {
			t.Errorf("bad case %+v", c)
		}
		seen[c.ID] = true
		if found, err := Find(c.ID); err != nil || found.ID != c.ID {
			t.Errorf("Find(%q) = %v, %v", c.ID, found.ID, err)
		}
	}
	if n := len(Of("nginx")); n != 19 {
		t.Errorf("%d cases of nginx, want 19", n)
	}
}

func TestFind(t *testing.T) {
	for name, want := range map[string]string{
		"CVE-2026-42945": "nginx-17-CVE-2026-42945",
		"CVE-2023-50472": "cjson-01-CVE-2023-50471",
		"cjson-04":       "cjson-04",
	} {
		if c, err := Find(name); err != nil || c.ID != want {
			t.Errorf("Find(%q) = %q, %v; want %q", name, c.ID, err, want)
		}
	}
	for _, name := range []string{"", "CVE-2026-4294", "nginx"} {
		if c, err := Find(name); err == nil {
			t.Errorf("Find(%q) = %q, want an error", name, c.ID)
		}
	}
}

func TestSeries(t *testing.T) {
	got := series("# all\na.patch\n\n b.patch -p1\nc.patch # why\n")
	if want := []string{"a.patch", "b.patch", "c.patch"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPrepare fetches a source package: it needs Debian and its archive.
func TestPrepare(t *testing.T) {
	if os.Getenv("FOTHER_LONG") != "1" {
		t.Skip("fetches source packages: set FOTHER_LONG=1")
	}
	dir := t.TempDir()
	for _, id := range []string{"cjson-05-CVE-2025-57052", "nginx-25-CVE-2026-42055", "less-05-CVE-2024-32487", "memcached-09-CVE-2023-46853"} {
		t.Run(id, func(t *testing.T) {
			c, err := Find(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := tools.Install(t.Context(), c.Needs()...); err != nil {
				t.Fatal(err)
			}
			s, err := c.Prepare(t.Context(), filepath.Join(dir, id))
			if err != nil {
				t.Fatal(err)
			}
			if err := run(t.Context(), s.Dir, "patch", "-p1", "--dry-run", "-f", "-i", s.Patches[0]); err != nil {
				t.Errorf("the fix does not apply: %v", err)
			}
			again, err := c.Prepare(t.Context(), filepath.Join(dir, id))
			if err != nil || again.Dir != s.Dir {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// TestBuild runs the commands of one case of each package as a spec's commands
// are run, and looks for what they link. (Package nginx builds nginx.)
func TestBuild(t *testing.T) {
	if os.Getenv("FOTHER_LONG") != "1" {
		t.Skip("fetches and builds source packages: set FOTHER_LONG=1")
	}
	for _, id := range []string{"cjson-05-CVE-2025-57052", "less-05-CVE-2024-32487", "memcached-09-CVE-2023-46853"} {
		t.Run(id, func(t *testing.T) {
			c, err := Find(id)
			if err != nil {
				t.Fatal(err)
			}
			if err := tools.Install(t.Context(), c.Needs()...); err != nil {
				t.Fatal(err)
			}
			s, err := c.Prepare(t.Context(), t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range append(s.Configure, s.Build...) {
				cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
				cmd.Dir, cmd.Env = s.Dir, append(os.Environ(), s.Env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", command, err, out[max(0, len(out)-2000):])
				}
			}
			for _, name := range c.Outputs() {
				f, err := elfobj.Open(filepath.Join(s.Dir, name))
				if err != nil {
					t.Error(err)
				} else if _, err := f.BuildID(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
