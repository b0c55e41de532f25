package specfile

import (
	"encoding/json"
	"strings"
)

// SchemaID is the address of the JSON schema of specs.
const SchemaID = "https://raw.githubusercontent.com/fother/fother/main/specs/spec.schema.json"

// node is a part of a JSON schema, draft 2020-12. Only what specs need is
// here.
type node struct {
	Schema      string `json:"$schema,omitempty"`
	ID          string `json:"$id,omitempty"`
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Type        any    `json:"type,omitempty"` // one name or several

	Const    string   `json:"const,omitempty"`
	Enum     []string `json:"enum,omitempty"`
	Pattern  string   `json:"pattern,omitempty"`
	Minimum  uint64   `json:"minimum,omitempty"`
	Maximum  uint64   `json:"maximum,omitempty"`
	Default  any      `json:"default,omitempty"`
	Examples []any    `json:"examples,omitempty"`

	Items       *node `json:"items,omitempty"`
	MinItems    int   `json:"minItems,omitempty"`
	MaxItems    int   `json:"maxItems,omitempty"`
	UniqueItems bool  `json:"uniqueItems,omitempty"`

	Properties           map[string]*node `json:"properties,omitempty"`
	PropertyNames        *node            `json:"propertyNames,omitempty"`
	AdditionalProperties any              `json:"additionalProperties,omitempty"` // false or a *node
	MaxProperties        int              `json:"maxProperties,omitempty"`
	Required             []string         `json:"required,omitempty"`

	Not   *node   `json:"not,omitempty"`
	OneOf []*node `json:"oneOf,omitempty"`
	If    *node   `json:"if,omitempty"`
	Then  *node   `json:"then,omitempty"`
}

// Schema returns the JSON schema of a spec, which editors use to complete and
// check what is typed. What it refuses, Parse refuses too; Parse also looks at
// the files that a spec names.
func Schema() []byte {
	root := &node{
		Schema: "https://json-schema.org/draft/2020-12/schema", ID: SchemaID,
		Title:                "Fother spec",
		Description:          "What one release of a live patch is made from: a source tree, the fix, and how the tree is built.",
		Type:                 "object",
		Properties:           map[string]*node{},
		AdditionalProperties: false,
		// What is fetched is pinned. In an address a query may have the
		// checksum.
		If:   &node{Properties: map[string]*node{"source": {Pattern: `^https?://[^?]*$`}}, Required: []string{"source"}},
		Then: &node{Required: []string{"checksum"}},
	}
	for _, f := range fields {
		root.Properties[f.key] = f.schema
		if f.required {
			root.Required = append(root.Required, f.key)
		}
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		panic(err) // a table that cannot be written is our bug
	}
	return []byte(b.String())
}

// Patterns that several values share.
const (
	filled      = `\S` // not empty
	identPat    = `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`
	checksumPat = `^(sha256:[0-9A-Fa-f]{64}|sha512:[0-9A-Fa-f]{128}|git:([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}))$`
)

// commands is the schema of a list of shell commands.
func commands(least int, description string, example ...any) *node {
	return &node{
		Type: "array", Description: description, MinItems: least, MaxItems: maxEntries,
		Items: &node{Type: "string", Pattern: filled}, Examples: []any{example},
	}
}

// The schemas of the keys. Their descriptions are what an editor shows.
var (
	nameSchema = &node{
		Type: "string", Pattern: identPat, Examples: []any{"nginx-1.22.1"},
		Description: "Name of the release, and of its bundle NAME-LEVEL.kpatch.tar.zst: letters, digits, '.', '_' and '-'.",
	}
	descriptionSchema = &node{
		Type: "string", Pattern: filled,
		Description: "What the patch is for, in one line or more. It is shown to those who apply it.",
	}
	sourceSchema = &node{
		Type: "string", Pattern: filled, Default: ".",
		Description: "The source tree: a folder, an archive (" + strings.Join(archiveSuffixes, ", ") + "), or an address, " +
			"https://… of an archive with a checksum or git::https://…?ref=COMMIT. A relative path is relative to the spec and stays in its folder. Default: the folder of the spec.",
		Examples: []any{"nginx-1.22.1", "nginx-1.22.1.tar.gz", "https://example.org/nginx-1.22.1.tar.gz", "git::https://example.org/nginx.git?ref=COMMIT"},
	}
	checksumSchema = &node{
		Type: "string", Pattern: checksumPat,
		Description: "Checksum of the archive, sha256:HEX or sha512:HEX, as sha256sum prints it; for git, git:COMMIT. An address needs one, unless it has ?checksum= in it or a full commit id as ref.",
		Examples:    []any{"sha256:" + strings.Repeat("0", 64)},
	}
	patchesSchema = &node{
		Type: "array", MinItems: 1, MaxItems: maxEntries, Items: &node{Type: "string", Pattern: filled}, Examples: []any{[]any{"fix.patch"}},
		Description: "The source patches that make up the fix, in order: unified diffs, applied as by patch -p1 without fuzz.",
	}
	configureSchema = commands(0, "Shell commands that prepare the fresh tree, run once for each of the two builds.", "./configure --prefix=/usr")
	buildSchema     = func() *node {
		n := commands(1, "Shell commands that build the tree, run in it. Their order and flags should be those of the build that was shipped.", "make -j2")
		n.Default = []any{"make"}
		return n
	}()
	installSchema = commands(0, "Shell commands that install what was built below the folder $DESTDIR. They belong to the build.", "make install")
	envSchema     = &node{
		Type: "object", MaxProperties: maxEntries, Examples: []any{map[string]string{"CFLAGS": "-O2 -g"}},
		PropertyNames:        &node{Pattern: envPattern.String(), Not: &node{Enum: ownEnv}},
		AdditionalProperties: &node{Type: []string{"string", "number", "boolean"}},
		Description:          "Variables for the environment of all commands. " + strings.Join(ownEnv, ", ") + " are set already.",
	}
	targetsSchema = &node{
		Type: "array", MaxItems: maxEntries, UniqueItems: true, Examples: []any{[]any{"objs/nginx"}},
		Items:       &node{Type: "string", Pattern: `^[^/]`, Not: &node{Pattern: `^(\.|\.\.|\.\./.*)$`}},
		Description: "The programs and libraries to patch, by their paths in the tree when the build links them. Default: all that changed.",
	}
	seriesSchema = &node{
		Type: "string", Pattern: identPat, Default: "default",
		Description: "The line of patches to which this one belongs. Patches of one series replace each other, those of different series coexist.",
	}
	levelSchema = &node{
		Type: "integer", Minimum: 1, Maximum: 1<<32 - 1, Default: 1,
		Description: "Place of the patch in its series. A higher level replaces a lower, so it must hold the fixes of all levels below it.",
	}
	cvesSchema = &node{
		Type: "array", MaxItems: maxEntries, UniqueItems: true, Items: &node{Type: "string", Pattern: cvePattern.String()},
		Description: "The CVE numbers that the patch fixes.", Examples: []any{[]any{"CVE-2026-12345"}},
	}
	consistencySchema = &node{
		Description: "When the new code may begin to run. strict: not while any thread is inside a function that changes.",
		Default:     strict,
		OneOf: []*node{
			{Const: strict, Description: "No call sees old and new code. The default."},
			{
				Type: "object", AdditionalProperties: false, Required: []string{nextCallKey, reasonKey},
				Description: "Calls of some functions that are under way may end in the old code.",
				Properties: map[string]*node{
					nextCallKey: {
						Type: "array", MinItems: 1, MaxItems: maxEntries, UniqueItems: true,
						Items:       &node{Type: "string", Pattern: functionPattern.String()},
						Description: "The functions, as nm prints them: such as a worker's main loop, which never leaves the stack.",
					},
					reasonKey: {Type: "string", Pattern: filled, Description: "Why that is right."},
				},
			},
		},
	}
)
