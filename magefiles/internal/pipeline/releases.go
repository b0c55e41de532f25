package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
)

// Promote moves a release up to a channel, "" for the next one.
func Promote(ctx context.Context, o Options, name, channel string) error {
	ref, err := registry.ParseRef(name)
	if err != nil {
		return err
	}
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	now, err := p.Promote(ctx, ref, registry.Channel(channel))
	switch {
	case errors.Is(err, registry.ErrPublished):
		o.say("%s is in %s already", ref, now)
	case err != nil:
		return err
	default:
		o.say("%s is in %s", ref, now)
	}
	return nil
}

// Revoke has hosts take a release out, and never apply it again.
func Revoke(ctx context.Context, o Options, name, reason string) error {
	ref, err := registry.ParseRef(name)
	if err != nil {
		return err
	}
	p, err := openRegistry(o)
	if err != nil {
		return err
	}
	done, err := p.Revoke(ctx, ref, reason)
	switch {
	case errors.Is(err, registry.ErrPublished):
		o.say("%s is revoked already: %s", ref, done.Reason)
	case err != nil:
		return err
	default:
		o.say("%s is revoked: %s", ref, done.Reason)
		o.say("hosts take it out when they pull next; the fix of the fix is published as a higher level")
	}
	return nil
}

// ListReleases prints what is published, a line for each release.
func ListReleases(ctx context.Context, w io.Writer, o Options) error {
	entries, err := listed(ctx, o)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "RELEASE\tCHANNEL\tBUILDS\tBYTES\tCVES\tSTATE")
	for len(entries) > 0 {
		e, n := entries[0], 1
		for n < len(entries) && entries[n].Package == e.Package && entries[n].Series == e.Series && entries[n].Level == e.Level {
			n++
		}
		entries = entries[n:]
		ref := registry.Ref{Package: e.Package, Level: e.Level}
		if e.Series != specs.DefaultSeries {
			ref.Series = e.Series
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", ref, e.Channel, n, e.Length, strings.Join(e.CVEs, " "), state(&e))
	}
	return t.Flush()
}

// state says what stands in the way of a release.
func state(e *registry.Entry) string {
	switch {
	case e.Revoked != nil:
		return "revoked: " + e.Revoked.Reason
	case e.Signed < e.Need:
		return fmt.Sprintf("signed by %d of %d: hosts refuse it", e.Signed, e.Need)
	}
	return "in use"
}

func listed(ctx context.Context, o Options) ([]registry.Entry, error) {
	p, err := openRegistry(o)
	if err != nil {
		return nil, err
	}
	return p.List(ctx)
}
