package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/magefiles/internal/corpus"
	"github.com/fother/fother/magefiles/internal/pipeline"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// Corpus makes the patches of all cases of the given packages, applies each to
// a process and takes it out again where one can be held, and prints a table:
// accepted, with the functions that change, or refused, with the reasons. At
// its end stands the share of the fixes that become live patches. It fails if
// a case ends in another way than the corpus says.
func Corpus(ctx context.Context, out io.Writer, fother string, o pipeline.Options, packages ...string) error {
	o.Progress = nil
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	var bad []error
	var s share
	for _, pkg := range packages {
		all := corpus.Of(pkg)
		if len(all) == 0 {
			bad = append(bad, fmt.Errorf("package %q: no cases", pkg))
		}
		for _, c := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := tools.Check(c.Needs()...); err != nil {
				return err
			}
			v := corpusCase(ctx, c, fother, o)
			if v.bad {
				bad = append(bad, errors.New(c.ID))
			}
			s.add(c, v)
			fmt.Fprintf(table, "%s\t%s\n", c.ID, v.text)
			table.Flush()
		}
	}
	fmt.Fprintln(out, s)
	return errors.Join(bad...)
}

// share counts cases.
type share struct {
	accepted, applied, refused, same, failed int
	packages                                 map[string]bool
}

func (s *share) add(c corpus.Case, v verdict) {
	if s.packages == nil {
		s.packages = map[string]bool{}
	}
	s.packages[c.Package] = true
	switch {
	case v.accepted:
		s.accepted++
	case v.refused:
		s.refused++
	case v.same:
		s.same++
	default:
		s.failed++
	}
	if v.applied {
		s.applied++
	}
}

func (s share) String() string {
	coded := s.accepted + s.refused + s.failed
	return fmt.Sprintf("%d of %d fixes of %d packages become live patches (%d %%); %d were applied and reverted; "+
		"%d are refused, %d failed, %d more change no code",
		s.accepted, coded, len(s.packages), 100*s.accepted/max(coded, 1), s.applied, s.refused, s.failed, s.same)
}

// verdict is how a case ended: one of the first three, or it failed.
type verdict struct {
	accepted, refused, same bool

	applied bool // to a process, and taken out
	bad     bool // not as the corpus says
	text    string
}

// corpusCase makes the patches of one case and says what is in them, or why
// there are none.
func corpusCase(ctx context.Context, c corpus.Case, fother string, o pipeline.Options) verdict {
	var refusal *pipeline.RefusedError
	s, targets, err := makeCase(ctx, c, o)
	expected := err != nil && c.Refused != "" && strings.Contains(err.Error(), c.Refused)
	oneLine := func() string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
	switch {
	case errors.Is(err, pipeline.ErrNoChange):
		return verdict{same: true, bad: !c.SameCode, text: "no code changes"}
	case errors.As(err, &refusal), expected:
		v := verdict{refused: true, bad: !expected, text: "refused: " + oneLine()}
		if !expected {
			v.text = "REFUSED: " + oneLine()
		}
		return v
	case err != nil:
		return verdict{bad: true, text: "FAILED: " + oneLine()}
	}
	v := verdict{accepted: true, text: "accepted"}
	held, err := holdCase(ctx, c, fother, pipeline.FolderOf(s, o), targets)
	switch {
	case err != nil:
		return verdict{bad: true, text: "FAILED: applying: " + oneLine()}
	case len(held) > 0:
		v.applied = true
		v.text += ", applied to and taken out of " + strings.Join(held, ", ")
	}
	if c.SameCode || c.Refused != "" {
		v.bad, v.text = true, "ACCEPTED, against what the corpus says"
	}
	v.text += ": " + changes(targets)
	return v
}

// makeCase makes the patches of one case.
func makeCase(ctx context.Context, c corpus.Case, o pipeline.Options) (s specs.Spec, targets []pipeline.Target, err error) {
	if s, err = c.Prepare(ctx, filepath.Join(o.Work, "corpus", c.ID)); err != nil {
		return s, nil, err
	}
	if _, err := pipeline.Make(ctx, s, o); err != nil {
		return s, nil, err
	}
	targets, err = pipeline.Targets(s, o)
	return s, targets, err
}

// changes lists the functions of a patch with their verdicts.
func changes(targets []pipeline.Target) string {
	var parts []string
	for _, t := range targets {
		var names []string
		for _, u := range t.Units {
			for _, f := range u.Changes.Functions {
				if f.Verdict != differ.Same {
					names = append(names, f.Verdict.String()+" "+f.Name)
				}
			}
		}
		parts = append(parts, t.Name+": "+strings.Join(names, ", "))
	}
	return strings.Join(parts, "; ")
}
