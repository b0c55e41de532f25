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
)

// Corpus makes the patches of all cases of the given packages and prints a
// table: accepted, with the functions that change, or refused, with the
// reasons. It fails if a case is refused, or accepted though it changes no
// code.
func Corpus(ctx context.Context, out io.Writer, o pipeline.Options, packages ...string) error {
	o.Progress = nil
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	defer table.Flush()
	var bad []error
	for _, pkg := range packages {
		for _, c := range corpus.Of(pkg) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := tools.Check(c.Needs()...); err != nil {
				return err
			}
			verdict, err := corpusCase(ctx, c, o)
			switch {
			case errors.Is(err, pipeline.ErrNoChange) && c.SameCode:
				verdict = "no code changes"
			case err != nil:
				verdict = "REFUSED: " + strings.ReplaceAll(err.Error(), "\n", "; ")
				bad = append(bad, errors.New(c.ID))
			case c.SameCode:
				verdict = "ACCEPTED, though no code changes: " + verdict
				bad = append(bad, errors.New(c.ID))
			}
			fmt.Fprintf(table, "%s\t%s\n", c.ID, verdict)
			table.Flush()
		}
	}
	return errors.Join(bad...)
}

// corpusCase makes the patches of one case and says what is in them.
func corpusCase(ctx context.Context, c corpus.Case, o pipeline.Options) (string, error) {
	s, err := c.Prepare(ctx, filepath.Join(o.Work, "corpus", c.ID))
	if err != nil {
		return "", err
	}
	if _, err := pipeline.Make(ctx, s, o); err != nil {
		return "", err
	}
	targets, err := pipeline.Targets(s, o)
	if err != nil {
		return "", err
	}
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
	return "accepted: " + strings.Join(parts, "; "), nil
}
