package cost

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of assumptions in docs/economics.md")

// The table of assumptions in the docs is the one in the code.
func TestDocsListEveryAssumption(t *testing.T) {
	const path = "../../docs/economics.md"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(raw), "-update -->\n")
	_, after, found := strings.Cut(rest, "<!-- end -->")
	if !found {
		t.Fatal("the marks around the table are gone")
	}
	var table strings.Builder
	table.WriteString("| name | value | range | unit | source |\n|---|---|---|---|---|\n")
	a := DefaultAssumptions()
	for _, n := range a.all() {
		spread := "–"
		if n.Low != n.High {
			spread = fmt.Sprintf("%.4g – %.4g", n.Low, n.High)
		}
		fmt.Fprintf(&table, "| `%s` | %.4g | %s | %s | %s |\n", n.name, n.Value, spread, n.Unit, n.Source)
	}
	want := before + "-update -->\n" + table.String() + "<!-- end -->" + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(raw) != want {
		t.Error("docs/economics.md is out of date: go test ./internal/cost -run TestDocs -update")
	}
}

// The figures of the published scenario in the docs are those that the program computes.
func TestDocsShowThePublishedFigures(t *testing.T) {
	raw, err := os.ReadFile("../../docs/economics.md")
	if err != nil {
		t.Fatal(err)
	}
	a := must(ArticleAnalysis(Default(), november)).Article
	for _, want := range []string{dollars(a.Exact.SpecialistUSD), dollars(a.Exact.SavingUSD), dollars(a.Exact.SmallGeneralist),
		whole(a.Published.GeneralistUSD), whole(a.Published.SpecialistUSD), whole(a.Published.SavingUSD), count(a.Published.BreakEven), "419,934"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("docs/economics.md lacks %s", want)
		}
	}
}
