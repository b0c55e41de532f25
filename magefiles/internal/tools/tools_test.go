package tools

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

const (
	debian    = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"
	rocky     = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"
	manjaro   = "ID=manjaro\nID_LIKE=arch\n"
	leap      = "ID=\"opensuse-leap\"\n"
	plan9     = "ID=plan9\n"
	noRelease = ""
)

// bare is a machine with the given programs and no headers but zlib's.
func bare(osRelease string, programs ...string) host {
	root := fstest.MapFS{
		"usr/include/x86_64-linux-gnu/zlib.h": {},
	}
	if osRelease != "" {
		root["etc/os-release"] = &fstest.MapFile{Data: []byte(osRelease)}
	}
	return host{root, func(p string) (string, error) {
		if slices.Contains(programs, p) {
			return "/usr/bin/" + p, nil
		}
		return "", os.ErrNotExist
	}}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		release string
		needs   []string
		text    string
		hint    string
	}{
		{"all there", debian, []string{"make", "zlib.h"}, "", ""},
		{"debian", debian, []string{"gcc", "as", "ld", "make", "gcc"}, "gcc, as, ld are missing on this machine",
			"install with: apt-get install -y --no-install-recommends gcc libc6-dev binutils"},
		{"header", debian, []string{"openssl/ssl.h"}, "openssl/ssl.h is missing on this machine",
			"install with: apt-get install -y --no-install-recommends libssl-dev"},
		{"like", rocky, []string{"gcc"}, "gcc is missing on this machine", "install with: dnf install -y gcc glibc-devel"},
		{"arch", manjaro, []string{"cmake"}, "cmake is missing on this machine", "install with: pacman -S --needed cmake"},
		{"suse", leap, []string{"g++"}, "g++ is missing on this machine", "install with: zypper install -y gcc-c++"},
		{"unknown distribution", plan9, []string{"gcc"}, "gcc is missing on this machine",
			"install gcc with your distribution's package manager"},
		{"no os-release", noRelease, []string{"gcc"}, "gcc is missing on this machine",
			"install gcc with your distribution's package manager"},
		{"unknown program", debian, []string{"frobnicate"}, "frobnicate is missing on this machine",
			"install frobnicate with your distribution's package manager"},
		{"not packaged there", rocky, []string{"aarch64-linux-gnu-gcc"}, "aarch64-linux-gnu-gcc is missing on this machine",
			"install aarch64-linux-gnu-gcc with your distribution's package manager"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := bare(tt.release, "make").check(tt.needs)
			if tt.text == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			missing, ok := errors.AsType[*MissingError](err)
			if !ok {
				t.Fatalf("got %v, want a *MissingError", err)
			}
			if missing.Error() != tt.text || missing.Hint() != tt.hint {
				t.Errorf("got  %s; %s\nwant %s; %s", missing, missing.Hint(), tt.text, tt.hint)
			}
		})
	}
}

func TestInstallNothing(t *testing.T) {
	if err := Install(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestSourceEntries(t *testing.T) {
	in := "# deb in a comment\ndeb [signed-by=/k] http://x/debian bookworm main\ndeb-src http://x/debian y main\n" +
		"\nTypes: deb\nURIs: http://x/debian\nSuites: deb\n\nTypes: deb deb-src\nURIs: u\n"
	want := "# deb in a comment\ndeb-src [signed-by=/k] http://x/debian bookworm main\ndeb-src http://x/debian y main\n" +
		"\nTypes: deb-src\nURIs: http://x/debian\nSuites: deb\n\nTypes: deb-src\nURIs: u\n"
	if got := sourceEntries(in); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestBackports: the suite of the release gets that of its backports beside it, others
// do not.
func TestBackports(t *testing.T) {
	const in = "# deb in a comment, bookworm\n" +
		"deb [signed-by=/k.gpg] http://d.example/debian bookworm main\n" +
		"deb http://s.example/debian-security bookworm-security main\n" +
		"Types: deb\nURIs: http://d.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
	const want = "# deb in a comment, bookworm\n" +
		"deb [signed-by=/k.gpg] http://d.example/debian bookworm main\n" +
		"deb [signed-by=/k.gpg] http://d.example/debian bookworm-backports main\n" +
		"deb http://s.example/debian-security bookworm-security main\n" +
		"Types: deb\nURIs: http://d.example/debian\nSuites: bookworm bookworm-updates bookworm-backports\nComponents: main\n"
	if got := backportEntries(in, "bookworm"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := backportEntries(in, ""); got != in {
		t.Errorf("no release: got\n%s", got)
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := codename(root); got != "" {
		t.Errorf("no os-release: got %q", got)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/os-release"), []byte("ID=debian\nVERSION_CODENAME=\"bookworm\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := codename(root); got != "bookworm" {
		t.Errorf("got %q", got)
	}
}

func TestWriteSourceLists(t *testing.T) {
	etc, dir := t.TempDir(), t.TempDir()
	if err := writeSourceLists(etc, dir, sourceEntries); err == nil || !strings.Contains(err.Error(), "no package sources") {
		t.Errorf("no sources: got error %v", err)
	}
	if err := os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(etc, "sources.list.d", "a.sources"), []byte("Types: deb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeSourceLists(etc, dir, sourceEntries); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "sources.list.d", "a.sources"))
	if err != nil || string(got) != "Types: deb-src\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func FuzzDistributions(f *testing.F) {
	for _, s := range []string{debian, rocky, manjaro, leap, plan9} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, id := range distributions(data) {
			if id == "" && !strings.Contains(string(data), "-") || strings.ContainsAny(id, " \t\n") {
				t.Errorf("not a word: %q", id)
			}
		}
	})
}

// TestPackageNames: what a distribution with apt cannot install is not worth
// a row.
func TestPackageNames(t *testing.T) {
	for need, names := range packageNames {
		if names[0] == "" {
			t.Errorf("%s: no package for apt", need)
		}
	}
}
