package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

var (
	// ErrNotBundle is the class of files that are no bundles at all.
	ErrNotBundle = errors.New("not a bundle")
	// ErrFormat is the class of bundles of a format that this program does not
	// read.
	ErrFormat = errors.New("unknown format")
	// ErrDamaged is the class of bundles whose content is not what [Encode]
	// wrote.
	ErrDamaged = errors.New("damaged bundle")
	// ErrTooLarge is the class of bundles that are beyond the limits.
	ErrTooLarge = errors.New("too large")
)

// Bundle is a bundle in memory. Patches and Files are in the order of
// Manifest.Targets.
type Bundle struct {
	Manifest Manifest
	Patches  []*kpack.Patch
	Files    [][]byte // the patches as they are stored
}

// Is reports whether data begins like a bundle.
func Is(data []byte) bool { return bytes.HasPrefix(data, zstdMagic) }

// Decode reads a bundle. All that the manifest says of the patches has been
// checked against them, and there is nothing else in the bundle.
//
// Errors: [ErrNotBundle], [ErrFormat], [ErrTooLarge], [ErrDamaged].
func Decode(data []byte) (*Bundle, error) {
	if !Is(data) {
		return nil, fmt.Errorf("%w: it is not compressed with zstd", ErrNotBundle)
	}
	b, err := decode(data)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, ErrNotBundle), errors.Is(err, ErrFormat), errors.Is(err, ErrTooLarge):
		return nil, err
	}
	return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
}

func decode(data []byte) (*Bundle, error) {
	content, err := decompress(data)
	if err != nil {
		return nil, err
	}
	r := newReader(content)
	text, err := r.next(manifestFile, -1)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotBundle, err)
	}
	b := &Bundle{}
	if err := b.Manifest.parse(text); err != nil {
		return nil, fmt.Errorf("%s: %w", manifestFile, err)
	}
	for _, t := range b.Manifest.Targets {
		file, err := r.next(t.File, t.Size)
		if err != nil {
			return nil, err
		}
		if err := b.add(&t, file); err != nil {
			return nil, fmt.Errorf("%s: %w", t.File, err)
		}
	}
	if h, err := r.tar.Next(); err == nil {
		return nil, fmt.Errorf("%q: the manifest does not name it", h.Name)
	} else if err != io.EOF {
		return nil, err
	}
	// Owners, links, times, padding, more after the end: whatever a tar file
	// may hold besides shows here.
	c := comparer(content)
	if err := archive(&c, text, b.Manifest.Created, b.Manifest.Targets, b.Files); err != nil {
		return nil, err
	}
	if len(c) > 0 {
		return nil, errForm
	}
	return b, nil
}

// errForm means that an archive has the right files, but is not the one that
// Encode makes of them.
var errForm = errors.New("the archive is not in the form that bundles have")

// comparer fails when something else is written than what it begins with.
type comparer []byte

func (c *comparer) Write(b []byte) (int, error) {
	if !bytes.HasPrefix(*c, b) {
		return 0, errForm
	}
	*c = (*c)[len(b):]
	return len(b), nil
}

// reader reads the archive's files in a known order.
type reader struct {
	content []byte
	source  *bytes.Reader // of content; tar reads no further than it has to
	tar     *tar.Reader
}

func newReader(content []byte) *reader {
	source := bytes.NewReader(content)
	return &reader{content, source, tar.NewReader(source)}
}

// next returns the content of the next file, whose name has to be as given,
// and so its size if that is not negative. It is not copied.
func (r *reader) next(name string, size int64) ([]byte, error) {
	h, err := r.tar.Next()
	if err == io.EOF {
		return nil, fmt.Errorf("%s is missing", name)
	} else if err != nil {
		return nil, err
	}
	rest := r.content[len(r.content)-r.source.Len():]
	switch {
	case h.Name != name || h.Typeflag != tar.TypeReg:
		return nil, fmt.Errorf("%q, type %q, in the place of %s", h.Name, h.Typeflag, name)
	case size < 0 && h.Size > maxManifest:
		return nil, fmt.Errorf("%w: %s of %d bytes: want at most %d", ErrTooLarge, name, h.Size, maxManifest)
	case size >= 0 && h.Size != size:
		return nil, fmt.Errorf("%s: %d bytes: the manifest says %d", name, h.Size, size)
	case h.Size > int64(len(rest)):
		return nil, fmt.Errorf("%s: %d bytes of %d", name, len(rest), h.Size)
	}
	return rest[:h.Size:h.Size], nil
}

// parse reads a manifest's JSON. Keys that it does not know are left aside: a
// later version of the format that has to be understood has another number.
func (m *Manifest) parse(text []byte) error {
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return err
	}
	if version.Format != Format {
		return fmt.Errorf("%w: version %d: this program reads version %d", ErrFormat, version.Format, Format)
	}
	if err := uniqueKeys(text); err != nil {
		return err
	}
	if err := json.Unmarshal(text, m); err != nil {
		return err
	}
	m.Created = m.Created.UTC()
	if err := m.check(); err != nil {
		return err
	}
	return m.checkTargets()
}

// add checks a file against what the manifest says of it.
func (b *Bundle) add(t *Target, file []byte) error {
	digest := make(chan specs.Digest, 1)
	go func() { digest <- specs.DigestOf(file) }() // takes about as long as Decode
	p, err := kpack.Decode(file)
	if <-digest != t.Digest {
		return errors.New("the digest is not that of the manifest")
	}
	if err != nil {
		return err
	}
	if err := b.Manifest.agrees(p); err != nil {
		return err
	}
	if is := targetOf(p, int64(len(file)), t.Digest); !is.equal(t) {
		return fmt.Errorf("the patch is for %s, build-id %s, %s, and %d functions: the manifest says otherwise", is.Name, is.BuildID, is.Arch, len(is.Functions))
	}
	b.Patches, b.Files = append(b.Patches, p), append(b.Files, file)
	return nil
}
