package patch

import (
	"context"
	"fmt"
	"os"

	"github.com/magefile/mage/mg"

	"github.com/fother/fother/magefiles/internal/pipeline"
	library "github.com/fother/fother/registry"
)

// Registry is the namespace of the targets that keep a registry.
type Registry mg.Namespace

// Init makes an empty registry and the keys that sign what is published in it.
func (Registry) Init(
	ctx context.Context,
	root *string, // how many of root's keys have to sign, as 2of3
	passphrase *bool, // ask for a passphrase of the keys, if FOTHER_KEY_PASSPHRASE has none
) error {
	how := pipeline.InitOptions{Root: text(root), Passphrase: is(passphrase)}
	return registry(ctx, func(o pipeline.Options) error { return pipeline.InitRegistry(ctx, o, how) })
}

// Key makes a key for a role (root, targets, bins, snapshot, timestamp) or for package.NAME.
func (Registry) Key(
	ctx context.Context,
	name string,
	passphrase *bool, // ask for a passphrase of the key, if FOTHER_KEY_PASSPHRASE has none
) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.MakeKey(ctx, o, name, is(passphrase)) })
}

// Keys lists the keys: what for, which may sign, and where they are.
func (Registry) Keys(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.ListKeys(ctx, os.Stdout, o) })
}

// Rotate lets a new key sign for a role or for package.NAME in place of another; hosts follow.
func (Registry) Rotate(
	ctx context.Context,
	name string,
	leaves *string, // the key that leaves, or its first digits, if there are several
	add *bool, // a key joins, none leaves
	drop *bool, // a key leaves, none joins
	threshold *int, // how many keys have to sign from then on
	passphrase *bool, // ask for a passphrase of a new key, if FOTHER_KEY_PASSPHRASE has none
) error {
	r := library.Rotation{Name: name, Leaves: text(leaves), Add: is(add), Drop: is(drop)}
	if threshold != nil {
		r.Threshold = *threshold
	}
	return registry(ctx, func(o pipeline.Options) error { return pipeline.RotateKey(ctx, o, r, is(passphrase)) })
}

// Sign adds the signatures of root's keys to the root.json that waits for them in the keys' folder.
func (Registry) Sign(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.SignRoot(ctx, o) })
}

// Refresh signs the registry anew, before what was signed expires.
func (Registry) Refresh(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.RefreshRegistry(ctx, o) })
}

// List shows what the registry holds, a line for each build.
func (Registry) List(ctx context.Context) error {
	return registry(ctx, func(o pipeline.Options) error { return pipeline.ListRegistry(ctx, os.Stdout, o) })
}

// Fetch writes a published bundle, named as NAME-LEVEL, with its signature, provenance, OpenVEX document and report into a folder.
func (Registry) Fetch(
	ctx context.Context,
	release string,
	to *string, // the folder; one of the release's name in the folder fetched of the work folder if it is not given
) error {
	return registry(ctx, func(o pipeline.Options) error {
		names, err := pipeline.FetchRelease(ctx, o, release, text(to))
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
