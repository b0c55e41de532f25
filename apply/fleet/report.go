package fleet

import (
	"errors"
	"iter"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/specs"
)

// Report is what one pass found and did. Its lists are sorted: releases by
// package, series and level, processes by id.
type Report struct {
	Registry string    `json:"registry,omitempty"` // its address
	Time     time.Time `json:"time"`               // when the pass began, UTC
	DryRun   bool      `json:"dry_run,omitempty"`
	// Scanned processes were read, Denied ones the caller may not trace, Gone
	// ones ended or ran another program before they were done with. LeftOut ones
	// were not looked at, or not patched, since others of their users took too
	// long; an error of one of these says so.
	Scanned int `json:"scanned"`
	Denied  int `json:"denied,omitempty"`
	Gone    int `json:"gone,omitempty"`
	LeftOut int `json:"left_out,omitempty"`
	// LeftAlone are those that the deny list has: not even read, or read before
	// they executed a program that it has.
	LeftAlone []LeftAlone `json:"left_alone,omitempty"`
	// BuildIDs is how many the registry was asked for.
	BuildIDs int `json:"build_ids"`
	// Releases are what the registry has for them, the highest level of each
	// series.
	Releases []*Release `json:"releases"`
	// Processes are those that a release is for.
	Processes []*Process `json:"processes"`
	// Expired are the processes out of which patches were taken, or with DryRun
	// would be, whose trial has ended.
	Expired []Expired `json:"expired,omitempty"`
	// Revoked are the patches that processes had and that were revoked since.
	Revoked []Recalled `json:"revoked,omitempty"`
	// Errors are those of the scan and of the registry as a whole.
	Errors []Failure     `json:"errors,omitempty"`
	Wall   time.Duration `json:"wall_ns"`
}

// Release is one release that fits something that runs.
type Release struct {
	Package  string          `json:"package"`
	Series   specs.Series    `json:"series"`
	Level    specs.Level     `json:"level"`
	File     string          `json:"file"`
	Digest   specs.Digest    `json:"digest"`
	KeyID    string          `json:"key_id,omitempty"`
	CVEs     []string        `json:"cves,omitempty"`
	BuildIDs []specs.BuildID `json:"build_ids"` // that run here
	// Processes is how many it is for, Lacking how many of them had not got
	// it before this pass.
	Processes int `json:"processes"`
	Lacking   int `json:"lacking"`
	// Errors say why it could not be had. Those of single processes are there.
	Errors []Failure `json:"errors,omitempty"`
}

// Process is a process that releases are for.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"` // comm
	// Fits is what there is for it, Present what it had before, at this level
	// or a higher one.
	Fits    []specs.PatchID `json:"fits"`
	Present []specs.PatchID `json:"present,omitempty"`
	// Rejected is what was on trial in it and was not accepted: a pass does not
	// put it in again.
	Rejected []specs.PatchID `json:"rejected,omitempty"`
	// Steps are what was done, one for each release.
	Steps  []Step    `json:"steps,omitempty"`
	Errors []Failure `json:"errors,omitempty"`
}

// Step is one release that went into one process, or would go.
type Step struct {
	File   string        `json:"file"` // of the bundle
	Result *apply.Result `json:"result,omitempty"`
	// Apply and Replace are the plan of a dry run.
	Apply   []apply.Applied `json:"apply,omitempty"`
	Replace []apply.Applied `json:"replace,omitempty"`
}

// LeftAlone is a process that must not be touched.
type LeftAlone struct {
	PID  int    `json:"pid"`
	Name string `json:"name"` // comm
	Rule string `json:"rule"` // of the deny list
}

// Expired is a process in which a trial has ended.
type Expired struct {
	PID    int           `json:"pid"`
	Name   string        `json:"name"` // comm
	Result *apply.Result `json:"result,omitempty"`
}

// Recalled is a patch that a process had when the pass found it revoked.
type Recalled struct {
	PID     int           `json:"pid"`
	Name    string        `json:"name"` // comm
	Patch   specs.PatchID `json:"patch"`
	Package string        `json:"package"`
	Reason  string        `json:"reason"`
	// Out is set if the process has it no more. Result is what took it out, nil
	// if another level took its place, of which the process's steps tell, or if
	// nothing is changed.
	Out    bool          `json:"out"`
	Result *apply.Result `json:"result,omitempty"`
}

// Failure is an error in a report.
type Failure struct {
	Err     error  `json:"-"`
	Message string `json:"error"`
	// Threads are those that a busy process could not be patched for.
	Threads []apply.Inside `json:"threads,omitempty"`
	// Hint and Exit are for the command that prints the report: what a user
	// can do, and the exit status that the error stands for.
	Hint string `json:"hint,omitempty"`
	Exit int    `json:"exit"`
}

func failure(err error) Failure {
	f := Failure{Err: err, Message: err.Error()}
	if busy := (*apply.BusyError)(nil); errors.As(err, &busy) {
		f.Threads = busy.Threads
	}
	return f
}

// Failures returns all errors of the report, in its order: the registry's, the
// releases', the processes'. They may be changed in place.
func (r *Report) Failures() iter.Seq[*Failure] {
	return func(yield func(*Failure) bool) {
		each := func(fs []Failure) bool {
			for i := range fs {
				if !yield(&fs[i]) {
					return false
				}
			}
			return true
		}
		if !each(r.Errors) {
			return
		}
		for _, rel := range r.Releases {
			if !each(rel.Errors) {
				return
			}
		}
		for _, p := range r.Processes {
			if !each(p.Errors) {
				return
			}
		}
	}
}
