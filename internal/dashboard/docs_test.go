package dashboard

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryRouteIsDocumented holds docs/dashboard.md against the router: each route of the API stands there with its role, what it
// does and the command that does the same, and each page in the table of pages. What the router does not have must not be there.
func TestEveryRouteIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "dashboard.md"))
	must(t, err)
	documented := map[string][]string{} // cells by route
	pages := ""
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		first := strings.Trim(cells[0], "`")
		if strings.HasPrefix(first, "GET /api/") || strings.HasPrefix(first, "POST /api/") {
			documented[first] = cells
		} else if strings.HasPrefix(line, "| `/") {
			pages += cells[0]
		}
	}
	o := everything(openStore(t))
	o.Login = true
	for _, r := range New(o).Routes() {
		path := strings.ReplaceAll(r.Path, "{$}", "")
		if !strings.HasPrefix(r.Path, "/api/") {
			if r.Method == "GET" && r.handler != nil && r.Least == Viewer && path != "/events" && !strings.Contains(pages, "`"+path+"`") {
				t.Errorf("the page %s is not in the table of pages", path)
			}
			continue
		}
		cells := documented[r.Method+" "+path]
		if len(cells) != 5 {
			t.Errorf("%s %s is not in the table of the API: | `%s %s` | %s | %s | | `%s` |", r.Method, path, r.Method, path, r.Role, r.Does, r.CLI)
			continue
		}
		if cells[1] != r.Role || cells[2] != r.Does || cells[4] != "`"+r.CLI+"`" {
			t.Errorf("%s %s is documented as %q, the router says %s, %s, %s", r.Method, path, cells, r.Role, r.Does, r.CLI)
		}
		delete(documented, r.Method+" "+path)
	}
	for route := range documented {
		t.Errorf("%s is documented, and the router does not have it", route)
	}
}
