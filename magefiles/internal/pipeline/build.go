package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/kpack/include"
	"github.com/fother/fother/magefiles/internal/tools"
	"github.com/fother/fother/specs"
)

// stages are the two builds, in order.
var stages = []specs.Stage{specs.StageOriginal, specs.StagePatched}

// build builds the tree as it is and with the fix, both at the same path and
// under capture. All of it is made beside what an earlier build left, and
// takes its place when both builds have succeeded.
func (r *run) build(ctx context.Context) (*built, error) {
	f, fresh := r.folder, r.folder.fresh()
	lock, err := Lock(f.site())
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	for _, dir := range []string{f.Tree(), f.destdir(), string(fresh)} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(string(fresh), 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(string(fresh))
	b, dir, err := r.source(ctx)
	if err != nil {
		return nil, err
	}
	// A build that is told CC=fother-cc has to find it.
	path, _ := lookup(r.env(), "PATH")
	env := append(slices.Clone(r.spec.Env), fmt.Sprintf("%s=%d", epochName, b.Epoch), "PATH="+path+":"+filepath.Dir(r.o.Shim))
	for _, stage := range stages {
		if err := r.buildStage(ctx, dir, env, stageBuild{stage: stage, store: fresh.store(), log: f.log(stage)}); err != nil {
			return nil, fmt.Errorf("%s build of %s: %w", stage, r.spec.Name, err)
		}
		if err := r.takeStage(stage); err != nil {
			return nil, err
		}
	}
	if err := r.debugBuild(ctx, dir, env); err != nil {
		return nil, err
	}
	if err := b.findFiles(f); err != nil {
		return nil, err
	}
	names := []string{"store", filepath.Base(f.debug())}
	for _, stage := range stages {
		names = append(names, string(stage), filepath.Base(f.Installed(stage)))
	}
	if err := r.replace("build", names...); err != nil {
		return nil, err
	}
	r.o.say("%s: build: %s, with and without the fix", r.spec.Name, plural(len(b.Files)+len(b.Installed), "program or library", "programs and libraries"))
	return b, nil
}

// source returns the folder of the source tree, which is fetched if need be,
// and what is known of it.
func (r *run) source(ctx context.Context) (*built, string, error) {
	s, b := r.spec, &built{}
	tree := treeState{}
	dir := s.Dir
	if s.Archive == "" {
		t, err := r.readTree()
		if err != nil {
			return nil, "", err
		}
		tree = t
		b.Sources = append(b.Sources, sourceDigest{"source tree", t.digest})
	} else {
		var err error
		if dir, err = r.fetch(ctx); err != nil {
			return nil, "", err
		}
		if tree, err = digestTree(dir); err != nil {
			return nil, "", err
		}
		d, err := r.archiveDigest(tree)
		if err != nil {
			return nil, "", err
		}
		b.Sources = append(b.Sources, sourceDigest{archiveName(s.Archive), d})
	}
	for _, p := range s.Patches {
		d, err := digestFile(p)
		if err != nil {
			return nil, "", err
		}
		b.Sources = append(b.Sources, sourceDigest{filepath.Base(p), d})
	}
	b.Epoch = r.treeTime(tree)
	if given := r.epoch(); given != "" {
		n, err := strconv.ParseInt(given, 10, 64)
		if err != nil || n < 0 {
			return nil, "", fmt.Errorf("%s=%q: want seconds since 1970", epochName, given)
		}
		b.Epoch = n
	}
	return b, dir, nil
}

// archiveName is what a bundle calls an archive: its base name, or the
// address.
func archiveName(archive string) string {
	if filepath.IsAbs(archive) {
		return filepath.Base(archive)
	}
	return archive
}

// archiveDigest returns the digest of the archive itself where it is known,
// else that of the tree that came out of it.
func (r *run) archiveDigest(t treeState) (specs.Digest, error) {
	if filepath.IsAbs(r.spec.Archive) {
		return digestFile(r.spec.Archive)
	}
	var d specs.Digest
	if digits, ok := strings.CutPrefix(r.spec.Checksum, specs.ChecksumSHA256+":"); ok {
		_, err := hex.Decode(d[:], []byte(digits))
		return d, err
	}
	return t.digest, nil
}

// fetch unpacks the spec's archive, unless an earlier run has done so.
func (r *run) fetch(ctx context.Context) (string, error) {
	const name = "source"
	dir := r.folder.fetched()
	d := depends{}
	if err := r.sourceDepends(d); err != nil {
		return "", err
	}
	if st, err := readStamp(r.folder, name); err == nil && d.changed(st.Depends) == "" {
		if t, err := digestTree(dir); err == nil && t.digest == st.Left {
			return dir, nil
		}
	}
	if err := removeStamp(r.folder, name); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	end := r.o.begin(r.spec.Name+": fetching the source", nil)
	defer end()
	if err := source.Fetch(ctx, dir, r.spec.Archive, r.spec.Checksum); err != nil {
		return "", err
	}
	t, err := digestTree(dir)
	if err != nil {
		return "", err
	}
	return dir, writeStamp(r.folder, &stamp{Step: name, Depends: d, Left: t.digest})
}

// stageBuild is one build of the tree.
type stageBuild struct {
	stage      specs.Stage
	store, log string   // paths
	args       []string // that compilers get beside their own
	kind       string   // what is said of it
}

// buildStage builds one tree.
func (r *run) buildStage(ctx context.Context, dir string, env []string, b stageBuild) error {
	f, s := r.folder, r.spec
	if err := source.Copy(f.Tree(), dir, r.ours()...); err != nil {
		return err
	}
	if b.stage == specs.StagePatched {
		res, err := source.Apply(f.Tree(), s.Patches)
		if err != nil {
			return err
		}
		for _, moved := range res.Moved {
			if b.kind == "" {
				r.o.say("%s: %s", s.Name, moved)
			}
		}
	}
	log, err := os.Create(b.log)
	if err != nil {
		return err
	}
	defer log.Close()
	if b.stage == specs.StagePatched {
		if env, err = include.Environ(env, f.include()); err != nil {
			return err
		}
	}
	run := compiler.Options{Dir: f.Tree(), Env: env, Store: b.store, Shim: r.o.Shim, Log: log, Logger: r.o.Logger, Append: b.args}
	if len(s.Install) > 0 {
		run.Folders = []string{f.destdir()}
		if err := os.MkdirAll(f.destdir(), 0o755); err != nil {
			return err
		}
	}
	tree := "the " + string(b.stage) + " tree" + b.kind
	if len(s.Configure) > 0 {
		run.Commands, run.Stage = s.Configure, specs.StageConfigure
		if err := r.runCommands(ctx, run, "configuring "+tree, log.Name(), nil); err != nil {
			return err
		}
	}
	run.Commands, run.Stage = s.Build, b.stage
	for _, c := range s.Install {
		run.Commands = append(slices.Clip(run.Commands), r.installPrefix()+c)
	}
	count := func() int { return countRecords(filepath.Join(b.store, string(b.stage))) }
	return r.runCommands(ctx, run, "building "+tree, log.Name(), count)
}

// takeStage moves a tree that was built to its place in the fresh folder.
func (r *run) takeStage(stage specs.Stage) error {
	f, fresh := r.folder, r.folder.fresh()
	if err := os.Rename(f.destdir(), fresh.Installed(stage)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(f.Tree(), fresh.path(string(stage)))
}

// installPrefix goes before each install command: only these may know
// DESTDIR, or a build could put it into what it makes.
func (r *run) installPrefix() string {
	return "export DESTDIR='" + strings.ReplaceAll(r.folder.destdir(), "'", `'\''`) + "'; "
}

func (r *run) runCommands(ctx context.Context, run compiler.Options, doing, log string, count func() int) error {
	end := r.o.begin(r.spec.Name+": "+doing, count)
	err := compiler.Run(ctx, run)
	end()
	if e, ok := errors.AsType[*compiler.CommandError](err); ok {
		e.Command = strings.TrimPrefix(e.Command, r.installPrefix())
		if missing := tools.MissingIn(e.Tail); missing != nil {
			err = fmt.Errorf("%w: %w", missing, err)
		}
	}
	if err != nil {
		return &loggedError{err, log}
	}
	return nil
}

// loggedError is an error of a build whose output is in a file.
type loggedError struct {
	error
	log string
}

func (e *loggedError) Unwrap() error { return e.error }
func (e *loggedError) Hint() string  { return "all that the build printed is in " + Rel(e.log) }

// countRecords returns how many units and links a build has been seen to make.
func countRecords(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0 // it is not there yet
	}
	return len(entries)
}

// findFiles sets the deliverables of the original build.
func (b *built) findFiles(f Folder) error {
	c, err := compiler.Load(f.fresh().store(), specs.StageOriginal)
	if err != nil {
		return err
	}
	for _, l := range c.Deliverables() {
		if name, ok := strings.CutPrefix(l.Output, f.Tree()+"/"); ok {
			b.Files = append(b.Files, name)
		} else if name, ok := strings.CutPrefix(l.Output, f.destdir()+"/"); ok {
			b.Installed = append(b.Installed, name)
		}
	}
	slices.Sort(b.Files)
	slices.Sort(b.Installed)
	return nil
}

// buildLeft identifies what the builds left: the capture, and the programs and
// libraries. What else is in the trees may change, by a program that is run
// there.
func (r *run) buildLeft(b *built) (specs.Digest, error) {
	f := r.folder
	store, err := digestListing(f.store(), filepath.Join(f.store(), "tmp"))
	if err != nil {
		return specs.Digest{}, err
	}
	text := fmt.Sprintln(store)
	if _, err := os.Lstat(f.debug()); err == nil {
		debug, err := digestListing(f.debug(), filepath.Join(f.debug(), "tmp"))
		if err != nil {
			return specs.Digest{}, err
		}
		text += fmt.Sprintln(debug)
	}
	for _, stage := range stages {
		for _, list := range []struct {
			dir   string
			names []string
		}{{f.path(string(stage)), b.Files}, {f.Installed(stage), b.Installed}} {
			for _, name := range list.names {
				d, err := digestFile(filepath.Join(list.dir, name))
				if err != nil && (stage == specs.StageOriginal || !errors.Is(err, fs.ErrNotExist)) {
					return specs.Digest{}, err
				}
				text += fmt.Sprintf("%s %s %q\n", stage, d, name)
			}
		}
	}
	return specs.DigestOf([]byte(text)), nil
}
