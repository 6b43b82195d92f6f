// Package docs_test holds the code against what docs/ says of it.
package docs_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/doproxy/doproxy/"

// row matches a line of the import table: | `folder` | owns | `a`, `b` |
var row = regexp.MustCompile("(?m)^\\| `([a-z/1]+)` \\|.*\\| ([^|]+) \\|$")

// TestImportTable fails on an import of ours that the table in architecture.md
// does not allow. A package below a folder has its folder's row unless it has
// its own, and may import its own folder.
func TestImportTable(t *testing.T) {
	page, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string][]string{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		var may []string
		for _, name := range strings.Split(m[2], ",") {
			may = append(may, strings.Trim(strings.TrimSpace(name), "`"))
		}
		allowed[m[1]] = may
	}
	if len(allowed) < 10 {
		t.Fatalf("found only %d rows in architecture.md's import table", len(allowed))
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		home, may := rule(allowed, pkg)
		if home == "" && strings.Contains(strings.Join(fields[1:], " "), module) {
			t.Errorf("%s has no row in architecture.md's import table", pkg)
			continue
		}
		for _, imported := range fields[1:] {
			target, ours := strings.CutPrefix(imported, module)
			if !ours || within(target, home) || slices.Contains(may, "all") {
				continue
			}
			if !slices.ContainsFunc(may, func(folder string) bool {
				return target == folder || within(target, folder) && !hasRow(allowed, target)
			}) {
				t.Errorf("%s imports %s, which architecture.md does not allow: it may import %s", pkg, target, strings.Join(may, ", "))
			}
		}
	}
}

// rule finds the row for a package: its own, or that of the nearest folder above.
func rule(allowed map[string][]string, pkg string) (string, []string) {
	for home := pkg; home != ""; {
		if may, ok := allowed[home]; ok {
			return home, may
		}
		i := strings.LastIndexByte(home, '/')
		if i < 0 {
			break
		}
		home = home[:i]
	}
	return "", nil
}

func hasRow(allowed map[string][]string, pkg string) bool { _, ok := allowed[pkg]; return ok }

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }
