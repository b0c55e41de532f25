package patch

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/specs"
)

// Registry is the namespace of the targets that keep a registry.
type Registry mg.Namespace

// Init makes an empty registry and the keys that sign what is published in it.
func (Registry) Init(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.InitRegistry(ctx, o) })
}

// Refresh signs the registry anew, before what was signed expires.
func (Registry) Refresh(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.RefreshRegistry(ctx, o) })
}

// List shows what the registry holds.
func (Registry) List(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.ListRegistry(ctx, os.Stdout, o) })
}

// Fetch writes a published bundle with its signature, provenance, OpenVEX document and report into a folder.
func (Registry) Fetch(
	ctx context.Context,
	pkg string,
	level *int, // of the release; the highest if it is not given
	series *string, // of the release; default if it is not given
	to *string, // the folder; PACKAGE-LEVEL in the folder fetched of the work folder if it is not given
) error {
	return registry(ctx, func(o pipeline.Options) error {
		f := pipeline.Fetch{Package: pkg}
		if level != nil {
			n, err := specs.ParseLevel(strconv.Itoa(*level))
			if err != nil {
				return err
			}
			f.Level = n
		}
		if series != nil {
			f.Series = specs.Series(*series)
		}
		if to != nil {
			f.To = *to
		}
		names, err := pipeline.FetchRelease(ctx, o, f)
		for _, name := range names {
			fmt.Println(pipeline.Rel(name))
		}
		return err
	})
}

func registry(ctx context.Context, do func(pipeline.Options) error) error {
	o, err := pipeline.Folders()
	if err == nil {
		err = do(o)
	}
	return exit(ctx, err)
}
