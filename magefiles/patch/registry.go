package patch

import (
	"context"
	"os"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/magefiles/internal/pipeline"
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

func registry(ctx context.Context, do func(pipeline.Options) error) error {
	o, err := pipeline.Folders()
	if err == nil {
		err = do(o)
	}
	return exit(ctx, err)
}
