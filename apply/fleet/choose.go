package fleet

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

// choice is the release that is for one target and series.
type choice struct {
	id    specs.PatchID
	entry catalog.Entry
}

// choose picks the highest level of each target and series that is not revoked,
// and returns those that are, too. Entries that contradict each other are
// errors, and then none of that target and series is taken: which fix runs must
// not depend on chance, nor may one package revoke another's.
func choose(entries []catalog.Entry, asked []specs.BuildID) (choices, revoked []choice, errs []error) {
	type line struct {
		id     specs.BuildID
		series specs.Series
	}
	best := make(map[line][]catalog.Entry)
	for _, e := range entries {
		if _, ok := slices.BinarySearch(asked, e.BuildID); !ok {
			errs = append(errs, fmt.Errorf("%s: is for build-id %s, which was not asked for", e.File, e.BuildID))
			continue
		}
		if _, err := specs.ParseSeries(string(e.Series)); err != nil || e.Level == 0 {
			errs = append(errs, fmt.Errorf("%s: series %q, level %d: not a patch", e.File, e.Series, e.Level))
			continue
		}
		l := line{e.BuildID, e.Series}
		best[l] = append(best[l], e)
	}
	for l, es := range best {
		if _, err := highest(es); err != nil {
			errs = append(errs, fmt.Errorf("build-id %s, series %s: %w", l.id, l.series, err))
			continue
		}
		chosen := false
		for _, e := range es { // the highest level first
			c := choice{specs.PatchID{BuildID: l.id, Series: l.series, Level: e.Level}, e}
			if e.Revoked != nil {
				revoked = append(revoked, c)
			} else if !chosen {
				choices, chosen = append(choices, c), true
			}
		}
	}
	for _, cs := range [][]choice{choices, revoked} {
		slices.SortFunc(cs, func(a, b choice) int { return comparePatches(a.id, b.id) })
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return choices, revoked, errs
}

// highest sorts entries by their level and returns the highest. All have one
// target and series.
func highest(es []catalog.Entry) (catalog.Entry, error) {
	slices.SortFunc(es, func(a, b catalog.Entry) int {
		return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Package, b.Package), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	for _, e := range es[1:] {
		if e.Package != es[0].Package {
			return catalog.Entry{}, fmt.Errorf("is claimed by two packages, %q and %q; neither is taken", es[0].Package, e.Package)
		}
		if e.Level == es[0].Level && e.Digest != es[0].Digest {
			return catalog.Entry{}, errors.New("two bundles have the same level; neither is taken")
		}
	}
	return es[0], nil
}

// release is a bundle and what it is wanted for.
type release struct {
	*Release
	entry catalog.Entry
	// lacking are the processes that lack it, each with what it lacks of it.
	lacking []lacking
}

type lacking struct {
	*task
	ids []specs.PatchID
}

// releases groups what fits by release, sorted.
func (p *pull) releases(choices []choice) []*release {
	type key struct {
		name   string
		series specs.Series
		level  specs.Level
		digest specs.Digest
	}
	of := make(map[key]*release)
	get := func(e catalog.Entry) *release {
		k := key{e.Package, e.Series, e.Level, e.Digest}
		if of[k] == nil {
			of[k] = &release{entry: e, Release: &Release{
				Package: e.Package, Series: e.Series, Level: e.Level, File: e.File, Digest: e.Digest, KeyID: e.KeyID, CVEs: e.CVEs,
			}}
		}
		return of[k]
	}
	for _, c := range choices {
		r := get(c.entry)
		r.BuildIDs = append(r.BuildIDs, c.id.BuildID)
	}
	for _, t := range p.tasks {
		mine := make(map[*release]*lacking)
		for i, c := range t.fits {
			r := get(c.entry)
			if mine[r] == nil {
				mine[r] = &lacking{task: t}
				r.Processes++
			}
			if t.has[i] == lacks {
				mine[r].ids = append(mine[r].ids, c.id)
			}
		}
		for r, l := range mine {
			if len(l.ids) > 0 {
				r.Lacking++
				r.lacking = append(r.lacking, *l)
			}
		}
	}
	all := slices.SortedFunc(maps.Values(of), func(a, b *release) int {
		return cmp.Or(cmp.Compare(a.Package, b.Package), cmp.Compare(a.Series, b.Series), cmp.Compare(a.Level, b.Level), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	for _, r := range all {
		p.report.Releases = append(p.report.Releases, r.Release)
	}
	return all
}
