package fleet

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// Listed returns the entries under which r has the very bytes of a file that
// was decoded to patches: a bundle, or a single patch that is part of one. The
// bundles are fetched, so that their signatures are checked too. r has to be up
// to date.
func Listed(ctx context.Context, r Registry, data []byte, patches []*kpack.Patch) ([]catalog.Entry, error) {
	var ids []specs.BuildID
	for _, p := range patches {
		ids = append(ids, p.Target.BuildID)
	}
	slices.Sort(ids)
	var listed []catalog.Entry
	var errs []error
	entries, err := r.Lookup(ctx, slices.Compact(ids))
	if err != nil {
		errs = append(errs, err)
	}
	for _, e := range entries {
		same := func(p *kpack.Patch) bool {
			return p.Target.BuildID == e.BuildID && p.Meta.Series == e.Series && p.Meta.Level == e.Level
		}
		if !slices.ContainsFunc(patches, same) || bundle.Is(data) && specs.DigestOf(data) != e.Digest {
			continue
		}
		is, err := holds(ctx, r, e, data)
		if err != nil {
			errs = append(errs, err)
		} else if is {
			listed = append(listed, e)
		}
	}
	return listed, errors.Join(errs...)
}

// holds reports whether the bundle of e is, or has, a file of the given bytes.
func holds(ctx context.Context, r Registry, e catalog.Entry, data []byte) (bool, error) {
	have, err := r.Fetch(ctx, e)
	if err != nil || bytes.Equal(have, data) {
		return err == nil, err
	}
	b, err := bundle.Decode(have)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(b.Files, func(f []byte) bool { return bytes.Equal(f, data) }), nil
}
