package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fother/fother/magefiles/internal/attest"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// openVEXName is the document that scanners read, without the envelope.
const openVEXName = "openvex.json"

// FetchRelease writes what the registry has of a release into a folder: the
// bundle, its signature and what lies beside it. The OpenVEX document is there
// without its envelope too. All was verified. It returns the paths of the files.
//
// Name is that of the release, as for [registry.ParseRef], and to the folder; if
// it is "", one of that name in the work folder.
func FetchRelease(ctx context.Context, o Options, name, to string) ([]string, error) {
	ref, err := registry.ParseRef(name)
	if err != nil {
		return nil, err
	}
	p, err := openRegistry(o)
	if err != nil {
		return nil, err
	}
	found, err := p.Find(ctx, ref.Package, cmp.Or(ref.Series, specs.DefaultSeries), ref.Level)
	if err != nil {
		return nil, err
	}
	dir := cmp.Or(to, filepath.Join(o.Work, "fetched", name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	put := func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		if err := writeFile(path, data); err != nil {
			return err
		}
		paths = append(paths, path)
		return nil
	}
	data, signature, err := p.Download(ctx, found)
	if err != nil {
		return nil, err
	}
	if err := put(found.File, data); err != nil {
		return nil, err
	}
	if err := put(found.File+".sig", signature); err != nil {
		return nil, err
	}
	for _, name := range found.Attachments {
		file, statement, err := p.Attached(ctx, found, name)
		if err != nil {
			return paths, err
		}
		if err := put(name, file); err != nil {
			return paths, err
		}
		if name != vexName {
			continue
		}
		document, err := attest.Predicate(statement)
		if err != nil {
			return paths, fmt.Errorf("%s: %w", name, err)
		}
		if err := put(openVEXName, document); err != nil {
			return paths, err
		}
	}
	return paths, nil
}
