package corpus

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs/testenv"
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

// TestDebian: each case of the measurement can be fetched and built, and none
// is of a package that Fother was made with.
func TestDebian(t *testing.T) {
	all := Of(Debian)
	seen, packages := map[string]bool{}, map[string]bool{}
	for _, c := range all {
		r := c.recipe()
		if seen[c.ID] || c.K == 0 || c.Patch == "" || c.Version == "" || len(r.dsc) != 64 || len(r.build) == 0 {
			t.Errorf("bad case %+v", c)
		}
		if _, known := recipes[c.Package]; known {
			t.Errorf("%s: a package of the corpus", c.ID)
		}
		if got := Of(Debian + "/" + c.ID); len(got) != 1 || got[0].ID != c.ID {
			t.Errorf("%s alone: %v", c.ID, got)
		}
		seen[c.ID], packages[c.Package] = true, true
	}
	if len(all) < 20 || len(packages) < 8 {
		t.Errorf("%d cases of %d packages, want 20 of 8 at least", len(all), len(packages))
	}
	for name := range debianRecipes {
		if len(Of(Debian+"/"+name)) == 0 || len(Of(name)) > 0 {
			t.Errorf("%s has a recipe, but no case, or is among the others", name)
		}
	}
}

// TestVariants: a variant is built by its own compiler or options.
func TestVariants(t *testing.T) {
	for variant, want := range map[string]string{"": "", "clang": "CC=clang", "lto": "CFLAGS=" + cflags + " -flto=auto"} {
		env := Case{Package: "libmodbus", Variant: variant}.recipe().env
		if want == "" && len(env) > 0 || want != "" && !slices.Contains(env, want) {
			t.Errorf("%q: environment %q, want %q in it", variant, env, want)
		}
	}
}

// TestDigest: a source package that is not the one of the recipe is refused.
func TestDigest(t *testing.T) {
	dsc := filepath.Join(t.TempDir(), "giflib.dsc")
	if err := os.WriteFile(dsc, []byte("Source: giflib\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (Case{Package: "giflib"}).checkDigest(dsc); err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("error %v, want one about the digest", err)
	}
	if err := (Case{Package: "nginx"}).checkDigest(dsc); err != nil {
		t.Errorf("no digest is known: %v", err)
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
	if !testenv.Long() {
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
	if !testenv.Long() {
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
