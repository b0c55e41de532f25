package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// Channel is how far a release has come.
type Channel = catalog.Channel

// The channels, from the lowest.
const (
	Edge   = catalog.Edge
	Beta   = catalog.Beta
	Stable = catalog.Stable
)

// ParseChannel returns the channel of a name, Stable of none.
func ParseChannel(name string) (Channel, error) {
	c := orStable(Channel(name))
	if rank(c) == 0 {
		return "", fail(ErrInvalid, "channel", "%.80q: want %s, %s or %s", name, Edge, Beta, Stable)
	}
	return c, nil
}

// rank orders the channels; it is 0 for what is none.
func rank(c Channel) int { return slices.Index([]Channel{Edge, Beta, Stable}, c) + 1 }

func orStable(c Channel) Channel { return cmp.Or(c, Stable) }

// inListing is how listings have a channel.
func inListing(c Channel) Channel {
	if c == Stable {
		return ""
	}
	return c
}

// above returns the next higher channel, Stable of Stable.
func above(c Channel) Channel {
	switch c {
	case Edge:
		return Beta
	default:
		return Stable
	}
}

// Ref names a release.
type Ref struct {
	Package string
	Series  specs.Series // empty is the only one that has the level
	Level   specs.Level
}

// ParseRef reads the name of a release: PACKAGE-LEVEL, as its bundle is called,
// or PACKAGE@SERIES-LEVEL.
func ParseRef(text string) (Ref, error) {
	i := strings.LastIndexByte(text, '-')
	if i < 0 {
		return Ref{}, fail(ErrInvalid, text, "not the name of a release: want PACKAGE-LEVEL or PACKAGE@SERIES-LEVEL, as nginx-3")
	}
	level, err := strconv.ParseUint(text[i+1:], 10, 32)
	if err != nil || level == 0 {
		return Ref{}, fail(ErrInvalid, text, "level %.40q: want a number from 1 on, as in nginx-3", text[i+1:])
	}
	name, series, named := strings.Cut(text[:i], "@")
	r := Ref{Package: name, Level: specs.Level(level)}
	if err := checkName("package", r.Package, maxName); err != nil {
		return Ref{}, &Error{ErrInvalid, text, err}
	}
	if named {
		if r.Series, err = specs.ParseSeries(series); err != nil {
			return Ref{}, &Error{ErrInvalid, text, err}
		}
	}
	return r, nil
}

func (r Ref) String() string {
	if r.Series == "" {
		return fmt.Sprintf("%s-%d", r.Package, r.Level)
	}
	return fmt.Sprintf("%s@%s-%d", r.Package, r.Series, r.Level)
}

// find returns the release that ref names.
func (e *edit) find(ctx context.Context, ref Ref) (*release, error) {
	all, err := e.listing(ctx, packageTarget(ref.Package))
	if err != nil {
		return nil, err
	}
	var found *release
	for _, r := range all.Releases {
		if r.Package != ref.Package || r.Level != ref.Level || ref.Series != "" && r.Series != ref.Series {
			continue
		}
		if found != nil {
			return nil, fail(ErrInvalid, ref.String(), "series %s and %s both have this level: name one, as %s", found.Series, r.Series, Ref{r.Package, r.Series, r.Level})
		}
		found = r
	}
	if found == nil {
		return nil, fail(ErrNotFound, ref.String(), "the registry has no such release")
	}
	return found, nil
}

// update changes a release wherever it is listed.
func (e *edit) update(ctx context.Context, r *release, change func(*release)) error {
	targets := map[string]bool{packageTarget(r.Package): true}
	for _, id := range r.BuildIDs {
		targets[shardTarget(id)] = true
	}
	for target := range targets {
		l, err := e.listing(ctx, target)
		if err != nil {
			return err
		}
		for _, o := range l.Releases {
			if o.Package == r.Package && o.Series == r.Series && o.Level == r.Level && o.Digest == r.Digest {
				change(o)
				e.dirty[target] = true
			}
		}
	}
	return nil
}

// Promote moves a release up to a channel; empty is the one above that in which
// it is. It returns the channel in which it is then; if it was there, or higher,
// the error is ErrPublished.
func (p *Publisher) Promote(ctx context.Context, ref Ref, to Channel) (now Channel, err error) {
	if to != "" && rank(to) == 0 {
		return "", fail(ErrInvalid, string(to), "no channel: want %s, %s or %s", Edge, Beta, Stable)
	}
	err = p.change(ctx, func(e *edit) error {
		r, err := e.find(ctx, ref)
		if err != nil {
			return err
		}
		now = orStable(r.Channel)
		up := cmp.Or(to, above(now))
		switch {
		case r.Revoked:
			return fail(ErrConflict, ref.String(), "it is revoked")
		case rank(up) <= rank(now):
			return fail(ErrPublished, ref.String(), "is in %s already", now)
		}
		now = up
		if err := e.update(ctx, r, func(o *release) { o.Channel = inListing(up) }); err != nil {
			return err
		}
		return e.commit(ctx)
	})
	return now, err
}
