package cost

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTextShowsPlansVerdictChartAndEveryAssumption(t *testing.T) {
	a := analyze(t, published(1e6))
	text := a.Text()
	for _, want := range []string{"all gpt-4o", "$1,750.00", "* router: embedded + gpt-4o", referencePlan, "419,934",
		a.Best,
		"requests a month", "What moves the saving most", "one-off costs are back after", "Wrong answers are not priced", Default().Version()} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	for _, n := range a.Assumptions.all() {
		if !strings.Contains(text, n.name) || !strings.Contains(text, n.Source) {
			t.Errorf("assumption %s is not printed with its source", n.name)
		}
	}
	table, _, _ := strings.Cut(text, "What moves")
	for line := range strings.Lines(table) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 110 {
			t.Errorf("a line of %d columns: %s", n, line)
		}
	}
}

func TestArticleText(t *testing.T) {
	text := must(ArticleAnalysis(Default(), november)).Text()
	for _, want := range []string{"$2,000", "$720", "$1,280 (64 %)", "360,000", "$100", "$1,750", "$735", "419,934",
		"$87.50", "730.5",
		"gpt-6-luna", "9,798,441", "Which conclusion still holds", "leave out"} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
}

func TestSVGIsWellFormedAndSaysItInWords(t *testing.T) {
	for name, a := range map[string]*Analysis{"analysis": analyze(t, published(1e6)),
		"article": must(ArticleAnalysis(Default(), november))} {
		svg := a.SVG()
		checkXML(t, svg)
		for _, want := range []string{`role="img"`, "<title ", "<desc ", "prefers-color-scheme:dark", "all gpt-4o",
			"$1,750.00 a month", "cheaper than doing nothing from 419,934"} {
			if !strings.Contains(svg, want) {
				t.Errorf("%s: the picture lacks %q", name, want)
			}
		}
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s: a point is not a number", name)
		}
		if strings.Contains(svg, "http://") && strings.Count(svg, "http://") != 1 { // the name space only
			t.Errorf("%s: the picture refers to something outside", name)
		}
	}
}

func checkXML(t interface{ Fatal(...any) }, s string) {
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

var offFrame = regexp.MustCompile(`NaN|Inf|[ML]-`)

// Any scenario draws: within the frame, no point undefined.
func TestAnyScenarioRenders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := published(math.Pow(10, rapid.Float64Range(0, 12).Draw(t, "magnitude")))
		s.InputTokens = math.Pow(10, rapid.Float64Range(0, 8).Draw(t, "in"))
		s.OutputTokens = math.Pow(10, rapid.Float64Range(0, 8).Draw(t, "out"))
		s.Generalist = rapid.SampledFrom([]string{"gpt-4o", "gpt-6-luna", "openai/gpt-oss-20b",
			"deepseek-v4-flash"}).Draw(t, "model")
		s.Draws = 2
		a, err := Analyze(Default(), s, seeded())
		if err != nil {
			t.Fatal(err)
		}
		svg := a.SVG()
		checkXML(t, svg)
		if bad := offFrame.FindString(svg[strings.Index(svg, "</style>"):]); bad != "" {
			t.Fatalf("the picture contains %q", bad)
		}
		if a.Text() == "" {
			t.Fatal("no text")
		}
	})
}

func TestNumbersForPeople(t *testing.T) {
	for want, got := range map[string]string{
		"$1,750.00": dollars(1750), "-$3.20": dollars(-3.2), "$0.00": dollars(-0.001), "$999.99": dollars(999.99),
		"$1,234,567.89": dollars(1234567.89), "411,429": count(411428.6), "12": count(12), "$1,750": whole(1749.6),
		"-$2": whole(-1.7),
		"10k": short(1e4), "1M": short(999_900), "0.1": short(0.1), "100": short(100), "ab…": clip("abcdef", 3),
		"a b\n  c": wrap("a b c", 3, "  "),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestShutdownCalendar(t *testing.T) {
	list := Default().Shutdowns(november)
	if len(list) < 5 || list[0].Price.Shutdown != day("2026-12-11") || list[0].Days != 18 {
		t.Fatalf("first: %+v", list[0])
	}
	if last := list[len(list)-1]; last.Price.Shutdown != day("2026-10-23") || last.Days >= 0 {
		t.Errorf("a model that is already gone does not come last: %+v", last)
	}
	for i := 1; i < len(list); i++ {
		if list[i].Days >= 0 && list[i].Days < list[i-1].Days {
			t.Error("not in order of time")
		}
	}
	if n := len(Default().Shutdowns(time.Time{})); n < len(list) {
		t.Errorf("%d rows of all dates", n)
	}
}
