package dashboard

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"
)

var (
	colourRule  = regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{3,6});`)
	colourBlock = regexp.MustCompile(`(?s)(:root(?:\[data-theme="dark"\]|:not\(\[data-theme="light"\]\))?) \{\s+color-scheme: (light|dark);(.*?)\n\s*\}`)
)

// TestColours measures every pair of colours that stand on each other: text at 4.5:1, drawings and edges of fields at 3:1
// (WCAG 2.2, 1.4.3 and 1.4.11).
func TestColours(t *testing.T) {
	css, err := os.ReadFile("web/app.css")
	must(t, err)
	blocks := colourBlock.FindAllSubmatch(css, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of colours, want light, dark by the system's preference, dark by choice", len(blocks))
	}
	if string(blocks[1][3]) != string(blocks[2][3]) {
		t.Error("dark by preference and dark by choice differ")
	}
	for _, b := range blocks {
		colours := map[string]string{}
		for _, m := range colourRule.FindAllSubmatch(b[3], -1) {
			colours[string(m[1])] = string(m[2])
		}
		check := func(least float64, ink, ground string) {
			t.Helper()
			if got := contrast(t, colours[ink], colours[ground]); got < least {
				t.Errorf("%s: %s on %s has %.2f:1, want %.1f:1", b[2], ink, ground, got, least)
			}
		}
		for _, ground := range []string{"card", "ground", "wash"} {
			for _, ink := range []string{"ink", "soft", "link", "bad"} {
				check(4.5, ink, ground)
			}
			for _, series := range []string{"s0", "s1", "s2", "s3", "good", "edge-strong"} {
				check(3, series, ground)
			}
		}
		check(4.5, "sim", "sim-ground")
		check(4.5, "bad", "bad-ground")
		check(4.5, "soft", "bad-ground")
		check(4.5, "card", "ink")
	}
}

// contrast is the ratio of WCAG 2.2, 1.4.3.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	la, lb := luminance(t, a), luminance(t, b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 4 {
		hex = "#" + hex[1:2] + hex[1:2] + hex[2:3] + hex[2:3] + hex[3:] + hex[3:]
	}
	if len(hex) != 7 {
		t.Fatalf("%q is no colour", hex)
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		must(t, err)
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}
