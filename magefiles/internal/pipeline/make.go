package pipeline

import (
	"context"

	"github.com/fother/fother/specs"
)

// Make runs all steps and returns the paths of the .kpatch files.
func Make(ctx context.Context, s specs.Spec, o Options) ([]string, error) {
	if err := Build(ctx, s, o); err != nil {
		return nil, err
	}
	targets, err := Diff(ctx, s, o)
	if err != nil {
		return nil, err
	}
	return Pack(ctx, s, o, targets)
}
