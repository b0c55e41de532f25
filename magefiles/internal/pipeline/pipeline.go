package pipeline

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// ErrNoChange is the class of fixes that change no code.
var ErrNoChange = errors.New("the fix changes no code")

// Options says where and with what the steps work.
type Options struct {
	// Work is the folder that holds the work folders of all specs, an absolute
	// path.
	Work string
	// Shim is the path of the fother-cc binary.
	Shim string
	// Spec is the path of the file that the spec was read from, if any. The
	// bundle has its digest, and a change of the file alone, of a description
	// say, is not one of the source tree that it lies in.
	Spec string
	// Registry is the folder that [Publish] publishes to, and Keys the folder
	// of the keys that sign.
	Registry, Keys string
	// Builder is the URI that provenance names as the one who runs the builds; if
	// empty, one that stands for nobody in particular.
	Builder string
	// Channel is what Publish publishes to; "" is stable.
	Channel string
	// Unchecked lets a fix pass of which types cannot be compared for lack of debug
	// data, as [specs.NoDebugData] does in a spec. The patches say so.
	Unchecked bool
	// Progress, if set, gets a line for each step. On a terminal its last line
	// says all the time what is being done.
	Progress io.Writer
	Logger   *slog.Logger // nil is silent

	// repeats is the manifest of the release that is made once more, and home
	// the work folder of those who do so.
	repeats *bundle.Manifest
	home    string
}

func (o Options) say(format string, args ...any) {
	if o.Progress == nil {
		return
	}
	if isTerminal(o.Progress) {
		format = clearLine + format // where a line may stand that says what is being done
	}
	fmt.Fprintf(o.Progress, format+"\n", args...)
}

// Folder is the work folder of one spec.
type Folder string

// FolderOf returns the work folder of s: NAME-LEVEL or, of another series than
// the default, NAME@SERIES-LEVEL.
func FolderOf(s specs.Spec, o Options) Folder {
	name := s.Name
	if s.Series != specs.DefaultSeries && s.Series != "" {
		name += "@" + string(s.Series) // no name has an @ in it
	}
	return Folder(filepath.Join(o.Work, fmt.Sprintf("%s-%d", name, s.Level)))
}

// Layout says where the two builds of a release are, and where what is made
// from them goes. All paths are absolute.
type Layout struct {
	Tree string // where both builds ran
	// Installed is the folder that both builds installed to, or "". What was
	// linked there is named by its path in it.
	Installed string
	// Source is the source tree as it was before the fix, and SourceAt where it
	// was when it was built; "" if it is not there. Reasons come from it.
	Source, SourceAt string

	Store   string // the capture
	Debug   string // that of the same builds with debug data, or ""; it need not exist
	Diff    string // patch assembly, for people
	Patches string // the .kpatch files
}

// Layout returns where things are in f.
func (f Folder) Layout() Layout {
	return Layout{Tree: f.Tree(), Installed: f.destdir(), Source: f.Original(), SourceAt: f.Tree(), Store: f.store(), Debug: f.debug(), Diff: f.diff(), Patches: f.Patches()}
}

func (f Folder) path(name string) string { return filepath.Join(string(f), name) }

// site is the folder in which the builds of all levels and series of a release
// run. Their path gets into debug data and so into build-ids: a patch of level 2 has
// to be made from the same original build as that of level 1, and so has one of
// another series. Nor may it have unusual characters in it, for which
// dpkg-buildflags(1) leaves paths in debug data as they are.
//
// A rebuild, which has a work folder of its own in that of the build that it
// repeats, runs in the same place.
func (f Folder) site() string {
	name, work := filepath.Base(string(f)), filepath.Dir(string(f))
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		name = name[:i] // without the level
	}
	name, _, _ = strings.Cut(name, "@") // nor the series
	if filepath.Base(work) == rebuildName {
		work = filepath.Dir(work)
	}
	return filepath.Join(work, "build", name)
}

// rebuildName is the work folder of rebuilds in a work folder.
const rebuildName = ".rebuild"

// Tree is where both builds run. It is there only while they do, and after one
// that failed.
func (f Folder) Tree() string { return filepath.Join(f.site(), "tree") }

// Original is the tree of the original build as it was after it.
func (f Folder) Original() string { return f.path("original") }

// Patched is the tree of the patched build as it was after it.
func (f Folder) Patched() string { return f.path("patched") }

// Installed is what the install commands of a build left below DESTDIR.
func (f Folder) Installed(stage specs.Stage) string { return f.path("installed-" + string(stage)) }

// Patches is the folder of the .kpatch files.
func (f Folder) Patches() string { return f.path("patches") }

// Report is the file that tells what the comparison found; see [Report].
func (f Folder) Report() string { return f.path(reportName) }

// reportName is the file in the work folder.
const reportName = "report.json"

// destdir is where the install commands of both builds install to: like the
// tree, it has to have one path for both.
func (f Folder) destdir() string { return filepath.Join(f.site(), "installed") }

// include is where the headers for fixes are while the patched build runs.
func (f Folder) include() string { return filepath.Join(f.site(), "include") }

func (f Folder) store() string            { return f.path("store") }
func (f Folder) debug() string            { return f.path("store-debug") }
func (f Folder) diff() string             { return f.path("diff") }
func (f Folder) fetched() string          { return f.path("source") }
func (f Folder) fresh() Folder            { return Folder(f.path("new")) }
func (f Folder) withdrawn() Folder        { return Folder(f.path("withdrawn")) }
func (f Folder) stamp(step string) string { return f.path(step + ".stamp.json") }
func (f Folder) log(s specs.Stage) string { return f.path("build-" + string(s) + ".log") }

// debugLog is what a build with debug data prints.
func (f Folder) debugLog(s specs.Stage) string { return f.path("build-" + string(s) + "-debug.log") }
