package pipeline

import (
	"testing"

	"github.com/fother/fother/specs"
)

// TestSite: all levels and series of a release are built at one path, so that
// they are patches of one build, and others are not.
func TestSite(t *testing.T) {
	o := Options{Work: "/w"}
	site := func(name string, series specs.Series, level specs.Level) string {
		return FolderOf(specs.Spec{Name: name, Series: series, Level: level}, o).site()
	}
	want := "/w/build/web-1.2"
	for _, series := range []specs.Series{specs.DefaultSeries, "more", "hot-fix"} {
		for _, level := range []specs.Level{1, 12} {
			if got := site("web-1.2", series, level); got != want {
				t.Errorf("series %s, level %d: %s, want %s", series, level, got, want)
			}
		}
	}
	if got := site("web-1.3", "more", 1); got == want {
		t.Errorf("another release is built in %s too", got)
	}
}
