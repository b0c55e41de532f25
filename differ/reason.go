package differ

import (
	"fmt"
	"slices"
	"strings"
)

// Cause is one of the causes for which a function or object is not the same in
// both builds, or is carried. What cannot be told is CodeChanged, never a
// guess.
type Cause uint8

// The causes. Those up to DeclarationChanged explain a changed function,
// SourceUntouched narrows it down, those from ColdPart on say what differs.
const (
	SourceChanged        Cause = iota + 1 // the fix changes its source
	SignatureChanged                      // the fix changes its result or parameters
	InlinedCalleeChanged                  // the fix changes the source of functions that are inlined into it
	NowInlined                            // functions that it called are inlined now
	NowCalled                             // functions that were inlined are called now
	CloneAppeared                         // specialised copies: it calls them now, or is one
	CloneVanished                         // specialised copies: it called them, or was one
	DataChanged                           // data that it refers to changed
	LinkageChanged                        // was static and is now global
	CalleeChanged                         // the fix does not touch its source, but that of functions that it calls
	DeclarationChanged                    // the fix does not touch its source, but declarations in files
	SourceUntouched                       // the fix does not touch its source; there are functions that it changes and that have no code of their own
	ColdPart                              // its cold part came or went
	CallsDropped                          // calls functions no longer
	CallsAdded                            // calls functions that it did not
	CodeChanged                           // its code differs, for a cause that cannot be told
	NewCode                               // not in the original build
	RemovedCode                           // not in the patched build
	InlinedBefore                         // in the source of both; the original build inlined all calls, or has none
	InlinedEverywhere                     // in the source of both; the patched build inlines all calls, or has none
	ContentChanged                        // of an object
	UsedBy                                // an object that functions in the patch, or other data, refer to
)

// causes are the causes' texts: for machines, and for people without and with
// the names concerned.
var causes = [...]struct{ text, alone, with string }{
	SourceChanged:        {"source-changed", "source changed", "source changed: %s"},
	SignatureChanged:     {"signature-changed", "signature changed", "signature changed, it was %s"},
	InlinedCalleeChanged: {"inlined-callee-changed", "an inlined callee changed", "inlined callee changed: %s"},
	NowInlined:           {"now-inlined", "inlining flipped", "inlining flipped: %s called before, now inlined"},
	NowCalled:            {"now-called", "inlining flipped", "inlining flipped: %s inlined before, now called"},
	CloneAppeared:        {"clone-appeared", "specialised clone appeared", "specialised clone appeared: %s"},
	CloneVanished:        {"clone-vanished", "specialised clone vanished", "specialised clone vanished: %s"},
	DataChanged:          {"data-changed", "data that it refers to changed", "data that it refers to changed: %s"},
	LinkageChanged:       {"linkage-changed", "was static and is now global", "was static and is now global"},
	CalleeChanged:        {"callee-changed", "source not touched; a callee's changed", "source not touched; callee changed: %s"},
	DeclarationChanged:   {"declaration-changed", "source not touched; declarations changed", "source not touched; declarations changed in %s"},
	SourceUntouched:      {"source-untouched", "source not touched, code differs", "source not touched, code differs; the fix changes what has no code of its own: %s"},
	ColdPart:             {"cold-part", "its cold part came or went", "its cold part came or went"},
	CallsDropped:         {"calls-dropped", "no longer calls some functions", "no longer calls %s"},
	CallsAdded:           {"calls-added", "calls more functions", "now calls %s"},
	CodeChanged:          {"code-changed", "code differs", "code differs"},
	NewCode:              {"new", "not in the original build", "not in the original build"},
	RemovedCode:          {"removed", "not in the patched build", "not in the patched build"},
	InlinedBefore:        {"inlined-before", "inlining flipped: the original build has it inlined or unused", "inlining flipped: the original build has it inlined or unused"},
	InlinedEverywhere:    {"inlined-everywhere", "inlining flipped: the patched build has it inlined or unused", "inlining flipped: the patched build has it inlined or unused"},
	ContentChanged:       {"content-changed", "content changed", "content changed"},
	UsedBy:               {"used-by", "used", "used by %s"},
}

func (c Cause) String() string {
	if int(c) >= len(causes) || causes[c].text == "" {
		return fmt.Sprintf("cause %d", uint8(c))
	}
	return causes[c].text
}

// MarshalText writes the cause as machines read it.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Cause) UnmarshalText(text []byte) error {
	for i := range causes {
		if causes[i].text == string(text) && len(text) > 0 {
			*c = Cause(i)
			return nil
		}
	}
	return fmt.Errorf("cause %.40q is not known", text)
}

// explains reports whether c says why code differs, not only what does.
func (c Cause) explains() bool { return c <= SourceUntouched }

// Reason is a cause and the functions, data or files concerned, as far as they
// can be told.
type Reason struct {
	Cause Cause    `json:"cause"`
	Names []string `json:"names,omitempty"`
}

// Bounds of a reason's text.
const (
	maxNamed = 4   // names; the others are counted
	maxName  = 200 // bytes of a name
)

func (r Reason) String() string {
	if int(r.Cause) >= len(causes) || causes[r.Cause].text == "" {
		return r.Cause.String()
	}
	text := causes[r.Cause]
	if len(r.Names) == 0 || !strings.Contains(text.with, "%s") {
		return text.alone
	}
	var names []string
	for _, n := range r.Names[:min(len(r.Names), maxNamed)] {
		if len(n) > maxName {
			n = strings.ToValidUTF8(n[:maxName], "") + "…"
		}
		names = append(names, n)
	}
	if more := len(r.Names) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf(text.with, strings.Join(names, ", "))
}

// Reasons are all causes for one function or object, what explains most first.
type Reasons []Reason

func (rs Reasons) String() string {
	texts := make([]string, len(rs))
	for i, r := range rs {
		texts[i] = r.String()
	}
	return strings.Join(texts, "; ")
}

// Has reports whether c is among the causes.
func (rs Reasons) Has(c Cause) bool {
	return slices.ContainsFunc(rs, func(r Reason) bool { return r.Cause == c })
}

// add adds a cause if there are names.
func (rs *Reasons) add(c Cause, names []string) {
	if len(names) > 0 {
		*rs = append(*rs, Reason{c, names})
	}
}

// because is the one cause that needs no names.
func because(c Cause, names ...string) Reasons { return Reasons{{c, names}} }
