package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/fother/fother/specs/testenv"
)

var old = time.Unix(1500000000, 0)

// tarOf makes a tar archive. Headers without a mode get a usual one.
func tarOf(t testing.TB, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range all {
		if h.Typeflag == tar.TypeXGlobalHeader { // must have nothing else
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			continue
		}
		content := h.PAXRecords["content"]
		h.PAXRecords = nil
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.ModTime.IsZero() {
			h.ModTime = old
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fileOf(name, content string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"content": content}}
}

func linkOf(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
}

func hardOf(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func dirOf(name string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o555}
}

// project is a usual source archive.
func project(t testing.TB) []byte {
	run := fileOf("p-1/configure", "#!/bin/sh\n")
	run.Mode = 0o6777
	return tarOf(t, tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "a commit"}},
		dirOf("p-1/"), fileOf("p-1/main.c", "int main;\n"), run, dirOf("p-1/sub"), fileOf("p-1/sub/a/b.c", "b\n"),
		linkOf("p-1/sub/up.c", "../main.c"), linkOf("p-1/later", "sub/generated"), hardOf("p-1/hard.c", "p-1/main.c"))
}

// packed compresses data as the name of the file says.
func packed(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch filepath.Ext(name) {
	case ".gz":
		w := gzip.NewWriter(&b)
		_, err = w.Write(data)
		err = errors.Join(err, w.Close())
	case ".xz":
		w, e := xz.NewWriter(&b)
		if e != nil {
			t.Fatal(e)
		}
		_, err = w.Write(data)
		err = errors.Join(err, w.Close())
	case ".zst":
		w, e := zstd.NewWriter(&b)
		if e != nil {
			t.Fatal(e)
		}
		b.Write(w.EncodeAll(data, nil))
		err = w.Close()
	case ".bz2":
		testenv.Needs(t, "bzip2")
		cmd := exec.Command("bzip2")
		if cmd.Err != nil {
			testenv.Skip(t, "bzip2 is not installed")
		}
		cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &b
		err = cmd.Run()
	default:
		b.Write(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// zipOf makes a zip archive of what tarOf would take.
func zipOf(t testing.TB, all ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, h := range all {
		content := h.PAXRecords["content"]
		f := &zip.FileHeader{Name: h.Name, Method: zip.Deflate, Modified: old}
		mode := fs.FileMode(h.Mode).Perm() | 0o400
		switch h.Typeflag {
		case tar.TypeSymlink:
			mode |= fs.ModeSymlink
			content = h.Linkname
		case tar.TypeDir:
			mode |= fs.ModeDir
		case tar.TypeFifo:
			mode |= fs.ModeNamedPipe
		}
		f.SetMode(mode)
		e, err := w.CreateHeader(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
