package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// Encode returns the bundle of the given .kpatch files. It sets Format and
// Targets of m; a zero Created becomes the beginning of 1970. The order of
// files does not matter. The same arguments give the same bytes.
//
// It fails for two patches of one build-id, and for a patch of which name,
// series, level, description, CVEs or consistency are not those of m.
func Encode(m Manifest, files [][]byte) ([]byte, error) {
	m.Format, m.Targets = Format, nil
	m.Created = m.Created.UTC().Truncate(time.Second)
	if m.Created.IsZero() {
		m.Created = time.Unix(0, 0).UTC()
	}
	m.Toolchain = slices.Compact(slices.Sorted(slices.Values(m.Toolchain)))
	if err := m.check(); err != nil {
		return nil, err
	}
	sorted, err := m.take(files)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	if err := archive(&content, append(text, '\n'), m.Created, m.Targets, sorted); err != nil {
		return nil, err
	}
	if len(text) >= maxManifest || content.Len() > maxContent {
		return nil, fmt.Errorf("%w: a manifest of %d and an archive of %d bytes: want at most %d and %d",
			ErrTooLarge, len(text), content.Len(), maxManifest, maxContent)
	}
	return encoder().EncodeAll(content.Bytes(), nil), nil
}

// take adds the patches in files to the targets, and returns the files in the
// targets' order.
func (m *Manifest) take(files [][]byte) ([][]byte, error) {
	type pair struct {
		Target
		file []byte
	}
	var pairs []pair
	for i, f := range files {
		p, err := kpack.Decode(f)
		if err != nil {
			return nil, fmt.Errorf("patch %d of %d: %w", i+1, len(files), err)
		}
		if err := m.agrees(p); err != nil {
			return nil, err
		}
		pairs = append(pairs, pair{targetOf(p, int64(len(f)), specs.DigestOf(f)), f})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.BuildID, b.BuildID), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	sorted := make([][]byte, len(pairs))
	for i, p := range pairs {
		m.Targets, sorted[i] = append(m.Targets, p.Target), p.file
	}
	return sorted, m.checkTargets()
}

// archive writes the uncompressed tar archive. There is one way to write it:
// [Decode] takes no other.
func archive(to io.Writer, manifest []byte, created time.Time, targets []Target, files [][]byte) error {
	w := tar.NewWriter(to)
	add := func(name string, content []byte) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, ModTime: created}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	if err := add(manifestFile, manifest); err != nil {
		return err
	}
	for i, f := range files {
		if err := add(targets[i].File, f); err != nil {
			return err
		}
	}
	return w.Close()
}

// encoder compresses in one goroutine, so that bytes do not depend on a
// schedule.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(true), zstd.WithWindowSize(maxWindow))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
})
