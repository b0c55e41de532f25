package corpus

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Case is one patch in the series of a Debian source package.
type Case struct {
	// ID is PACKAGE-K-CVE, or PACKAGE-K alone for fixes without a CVE number.
	ID      string
	Package string
	Version string // of the source package
	K       int    // position in debian/patches/series, from 1
	Patch   string // file name in debian/patches
	CVEs    []string
	// SameCode is set where the fix gives the same machine code.
	SameCode bool
	// Variant is "clang" or "lto" for a build that is not the distribution's.
	Variant string
	// Refused is what the refusal of a fix says that cannot become a live patch
	// without its author's help.
	Refused string
}

// table has package, position, patch and CVEs of every case. After "|" stands
// what the refusal of a fix names.
const table = `
cjson      1 0001-add-null-checkings.patch                             CVE-2023-50471 CVE-2023-50472
cjson      2 0002-add-null-check-to-cjson-setvaluestring.patch         CVE-2024-31755
cjson      3 0001-allocate-memory-for-the-temporary-buffer.patch       CVE-2023-26819
cjson      4 0002-Fix-heap-buffer-overflow.patch
cjson      5 CVE-2025-57052.patch                                      CVE-2025-57052
less       3 End-OSC8-hyperlink-on-invalid-embedded-escape-sequen.patch CVE-2022-46663
less       4 Shell-quote-filenames-when-invoking-LESSCLOSE.patch       CVE-2022-48624
less       5 Fix-bug-when-viewing-a-file-whose-name-contains-a-ne.patch CVE-2024-32487
memcached  7 0008-CVE-2026-47783-CVE-2026-47784.patch                  CVE-2026-47783 CVE-2026-47784
memcached  8 0009-CVE-2023-46852.patch                                 CVE-2023-46852
memcached  9 CVE-2023-46853.patch                                      CVE-2023-46853 | struct mcp_parser_s
nginx      6 CVE-2025-23419.patch                                      CVE-2025-23419
nginx      7 CVE-2024-7347-1.patch                                     CVE-2024-7347
nginx      8 CVE-2024-7347-2.patch                                     CVE-2024-7347
nginx      9 CVE-2025-53859.patch                                      CVE-2025-53859
nginx     10 CVE-2026-1642.patch                                       CVE-2026-1642
nginx     11 CVE-2026-27651.patch                                      CVE-2026-27651
nginx     12 CVE-2026-27654.patch                                      CVE-2026-27654
nginx     13 CVE-2026-27784.patch                                      CVE-2026-27784
nginx     14 CVE-2026-28753.patch                                      CVE-2026-28753
nginx     15 CVE-2026-28755.patch                                      CVE-2026-28755
nginx     16 CVE-2026-32647.patch                                      CVE-2026-32647
nginx     17 CVE-2026-42945.patch                                      CVE-2026-42945
nginx     18 CVE-2026-42946.1.patch                                    CVE-2026-42946
nginx     19 CVE-2026-42946.2.patch                                    CVE-2026-42946
nginx     20 CVE-2026-40701.patch                                      CVE-2026-40701 | struct ngx_ssl_ocsp_ctx_s
nginx     21 CVE-2026-42934.patch                                      CVE-2026-42934
nginx     22 CVE-2026-9256.patch                                       CVE-2026-9256
nginx     24 CVE-2026-48142.patch                                      CVE-2026-48142
nginx     25 CVE-2026-42055.patch                                      CVE-2026-42055
`

// Cases returns all cases, by package and position.
func Cases() []Case {
	var all []Case
	for line := range strings.Lines(strings.TrimSpace(table)) {
		var c Case
		var patch string
		line, refused, _ := strings.Cut(line, "|")
		c.Refused = strings.TrimSpace(refused)
		f := strings.Fields(line)
		if _, err := fmt.Sscan(line, &c.Package, &c.K, &patch); err != nil {
			panic("corpus: table: " + line)
		}
		c.Patch, c.CVEs, c.Version = patch, f[3:], recipes[c.Package].version
		c.ID = fmt.Sprintf("%s-%02d", c.Package, c.K)
		if len(c.CVEs) > 0 {
			c.ID += "-" + c.CVEs[0]
		}
		// A check against wrap-around that 64-bit machines optimise out.
		c.SameCode = c.ID == "nginx-13-CVE-2026-27784"
		all = append(all, c)
	}
	return all
}

// Debian is the name for [Of] of the packages that the share of fixes that
// become live patches is measured on.
const Debian = "debian"

// debianCases returns the cases of debianTable, in its order.
func debianCases() []Case {
	var all []Case
	for line := range strings.Lines(strings.TrimSpace(debianTable)) {
		line, refused, _ := strings.Cut(line, "|")
		c := Case{Refused: strings.TrimSpace(refused)}
		var pkg string
		if _, err := fmt.Sscan(line, &pkg, &c.K, &c.Patch); err != nil {
			panic("corpus: table: " + line)
		}
		if c.Refused == "-" {
			c.Refused, c.SameCode = "", true
		}
		c.Package, c.Variant, _ = strings.Cut(pkg, "/")
		c.Version = debianRecipes[c.Package].version
		c.ID = fmt.Sprintf("%s-%02d", strings.ReplaceAll(pkg, "/", "."), c.K)
		for _, cve := range cveName.FindAllString(c.Patch, -1) {
			c.CVEs = append(c.CVEs, strings.ToUpper(cve))
		}
		if len(c.CVEs) > 0 {
			c.ID += "-" + c.CVEs[0]
		}
		all = append(all, c)
	}
	return all
}

// cveName matches the numbers in the names of patches.
var cveName = regexp.MustCompile(`(?i)CVE-[0-9]{4}-[0-9]{4,}`)

// Of returns the cases of one package, or all those of [Debian]. Debian/PACKAGE
// are those of a package there, with its variants, and Debian/ID is one case.
func Of(pkg string) []Case {
	all := Cases()
	if of, one, sub := strings.Cut(pkg, "/"); of == Debian {
		if all = debianCases(); !sub {
			return all
		}
		pkg = one
	}
	var some []Case
	for _, c := range all {
		if c.Package == pkg || c.ID == pkg {
			some = append(some, c)
		}
	}
	return some
}

// Find returns the case with that ID, or the last with that CVE.
func Find(name string) (Case, error) {
	var found Case
	for _, c := range Cases() {
		if c.ID == name || slices.Contains(c.CVEs, name) {
			found = c
		}
	}
	if found.ID == "" {
		return Case{}, fmt.Errorf("no case %q", name)
	}
	return found, nil
}
