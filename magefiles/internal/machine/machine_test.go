package machine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

// TestRun boots once, for all that a job relies on.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: does not boot a machine")
	}
	if err := Check(); err != nil {
		testenv.Skip(t, err.Error())
	}
	dir := t.TempDir()
	files := map[string]string{
		"run.sh":       "uname -m; ./sub/tool; cat empty; [ -r linked ] || exit 1; ls -A / | grep -q proc; [ $(id -u) = 0 ] && exit 7\n",
		"sub/tool":     "#!/bin/sh\necho a tool of $(wc -c </job/sub/odd) bytes\n",
		"sub/odd":      "12345",
		"empty":        "",
		"../elsewhere": "x",
	}
	for name, text := range files {
		path := filepath.Join(dir, "job", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../elsewhere", filepath.Join(dir, "job", "linked")); err != nil {
		t.Fatal(err)
	}
	var console bytes.Buffer
	status, err := Run(context.Background(), Options{Dir: filepath.Join(dir, "job"), Console: &console})
	if err != nil {
		t.Fatalf("%v\n%s", err, console.String())
	}
	if status != 7 {
		t.Errorf("status %d, want that of run.sh, 7", status)
	}
	for _, want := range []string{"aarch64\n", "a tool of 5 bytes\n"} {
		if !strings.Contains(console.String(), want) {
			t.Errorf("console has no %q:\n%s", want, console.String())
		}
	}
}

func TestRunErrors(t *testing.T) {
	if err := Check(); err != nil {
		testenv.Skip(t, err.Error())
	}
	if _, err := Run(context.Background(), Options{Dir: t.TempDir()}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a job without run.sh: %v", err)
	}
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.dir("d")
	a.dir("d")
	a.bytes("d/f", typeFile|0o644, []byte("abc"))
	a.link("l", "d/f")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%512 != 0 {
		t.Errorf("%d bytes: another archive could not follow", b.Len())
	}
	// Header of the file: magic, inode 2, mode, uid, gid, links, time, size 3.
	want := "07070100000002000081a4000000000000000000000001000000000000000300000000000000000000000000000000000000" +
		"0400000000d/f\x00\x00\x00abc\x00" // both padded to 4
	if got := strings.Count(b.String(), "070701"); got != 4 {
		t.Errorf("%d entries, want d, d/f, l and the trailer", got)
	}
	if at := strings.Index(b.String(), "07070100000002"); at < 0 || at%4 != 0 || !strings.HasPrefix(b.String()[at:], want) {
		t.Errorf("entry of d/f at %d:\n%q\nwant\n%q", at, b.String()[max(at, 0):max(at, 0)+len(want)], want)
	}
}

func TestArchiveErrors(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.entry("f", typeFile, 4, func(w io.Writer) error {
		_, err := w.Write([]byte("abc"))
		return err
	})
	if err := a.close(); err == nil || !strings.Contains(err.Error(), "changed while it was packed") {
		t.Errorf("a file that shrank: %v", err)
	}
	a = newArchive(&b)
	a.tree("x", "/dev/null")
	if err := a.close(); err == nil {
		t.Error("a device was packed")
	}
}

func TestFollow(t *testing.T) {
	var w bytes.Buffer
	status, found := follow(strings.NewReader("one\r\njob-OTHER: 3\r\njob-T: x\r\njob-T: 12\r\n[ 7.1] reboot: Power down\r\n"), &w, "job-T: ")
	if !found || status != 12 || w.String() != "one\njob-OTHER: 3\n" {
		t.Errorf("status %d (found %v), console %q", status, found, w.String())
	}
	if _, found := follow(strings.NewReader("Kernel panic"), &w, "job-T: "); found {
		t.Error("a status out of nothing")
	}
}

// TestConfigured: what a kernel's configuration does not take is named.
func TestConfigured(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".config")
	for lacks, want := range map[string]string{"CONFIG_NONE=y\n": "", "CONFIG_ARM64_64K_PAGES=y\n": "CONFIG_ARM64_64K_PAGES=y"} {
		if err := os.WriteFile(file, bytes.Replace(kernelConfig, []byte(lacks), nil, 1), 0o644); err != nil {
			t.Fatal(err)
		}
		switch err := configured(file); {
		case want == "" && err != nil:
			t.Error(err)
		case want != "" && (err == nil || !strings.HasSuffix(err.Error(), "does not take "+want)):
			t.Errorf("without %q: %v", lacks, err)
		}
	}
}

// TestPageSize: a kernel with other pages is refused by their size.
func TestPageSize(t *testing.T) {
	if _, err := Run(context.Background(), Options{Dir: t.TempDir(), PageSize: 8 << 10}); err == nil || !strings.Contains(err.Error(), "pages of 8192 bytes") && Check() == nil {
		t.Errorf("pages of 8 KiB: %v", err)
	}
}
