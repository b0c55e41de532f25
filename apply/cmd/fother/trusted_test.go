package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestResolveAsTheKernel compares with what the kernel opens.
func TestResolveAsTheKernel(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "a/x", "a/b/x", "f"} {
		write(t, filepath.Join(dir, name), []byte(name))
	}
	for link, target := range map[string]string{"link": "a/b", "abs": dir + "/a/b/", "up": "link/..", "file": "f/"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, path := range []string{
		"x", "./x", "a//x", "link/x", "link/../x", "abs/../x", "up/x", "up/../x", "link/./../b/x", "link", "link/", "a/..", ".",
		"f/", "file", "f/../x", "none/../x", "",
	} {
		for _, path := range []string{path, dir + "/" + path} {
			var want, got unix.Stat_t
			wantErr := unix.Stat(path, &want)
			real, _, err := newTrust().resolve(path)
			if (err == nil) != (wantErr == nil) || wantErr != nil && !errors.Is(err, wantErr) {
				t.Errorf("%q: %v: want %v", path, err, wantErr)
				continue
			}
			if err == nil && (unix.Lstat(real, &got) != nil || got.Ino != want.Ino || got.Dev != want.Dev) {
				t.Errorf("%q: leads to %s, not where the kernel goes", path, real)
			}
		}
	}
}

// TestFolderBehindLink holds that the files of a folder are those of the folder
// that was looked at.
func TestFolderBehindLink(t *testing.T) {
	dir := t.TempDir()
	data := fixture(t).patch(t, "default", 3)
	write(t, filepath.Join(dir, "a/fix.kpatch"), data)
	write(t, filepath.Join(dir, "a/b/x"), nil)
	if err := os.Symlink("a/b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s, err := openStore([]string{dir + "/link/.."})
	if err != nil || len(s.loaded) != 1 || s.loaded[0].level != 3 {
		t.Errorf("%+v, %v: want the patch of the link's parent", s, err)
	}
}

func TestOthersWrite(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, test := range []struct {
		st   unix.Stat_t
		want string
	}{
		{unix.Stat_t{Uid: own, Gid: 0, Mode: 0o644}, ""},
		{unix.Stat_t{Uid: own, Gid: 0, Mode: 0o664}, "group 0 can write it"},
		{unix.Stat_t{Uid: own, Gid: 4242, Mode: 0o664}, "group 4242 can write it"},
		{unix.Stat_t{Uid: own, Gid: 0, Mode: 0o646}, "everybody can write it"},
		{unix.Stat_t{Uid: own + 1, Gid: 0, Mode: 0o600}, "it belongs to user"},
	} {
		if got := othersWrite(&test.st); !strings.HasPrefix(got, test.want) || test.want == "" && got != "" {
			t.Errorf("user %d, group %d, mode %o: %q: want %q", test.st.Uid, test.st.Gid, test.st.Mode, got, test.want)
		}
	}
	for _, test := range []struct {
		gid, uid, egid uint32
		want           bool
	}{{1000, 1000, 1000, true}, {0, 0, 0, false}, {0, 1000, 1000, false}, {1000, 1000, 100, false}, {1001, 1000, 1000, false}, {100, 1000, 100, false}} {
		if got := ownGroup(test.gid, test.uid, test.egid); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
