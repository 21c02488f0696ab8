package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// picture draws what each phase came to: bars for the share that the specialist answered, dots for the accuracy of all answers
// and of its own, and the dollars of a thousand tickets below.
func (p *proof) picture() []byte {
	const left, top, height, step = 64, 64, 240, 128
	width := left + step*len(p.phases) + 24
	y := func(share float64) float64 { return top + height*(1-share) }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" font-family="system-ui, sans-serif" font-size="12">`+"\n", width, top+height+96)
	b.WriteString("<style>text{fill:#1f2328}.axis{stroke:#8c959f}.grid{stroke:#d8dee4}.bar{fill:#0072b2}.all{fill:#009e73}.own{fill:#d55e00}" +
		"@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#768390}.grid{stroke:#30363d}.bar{fill:#56b4e9}.all{fill:#2fbf93}.own{fill:#e69f00}}</style>\n")
	fmt.Fprintf(&b, "<title>The life of the task %s, phase by phase</title>\n<desc>%s</desc>\n", html.EscapeString(p.world.name), html.EscapeString(p.inWords()))
	fmt.Fprintf(&b, `<rect class="bar" x="%d" y="14" width="12" height="12"/><text x="%d" y="24">answered by the specialist</text>`, left, left+18)
	fmt.Fprintf(&b, `<circle class="all" cx="%d" cy="20" r="6"/><text x="%d" y="24">right, of all answers</text>`, left+190, left+202)
	fmt.Fprintf(&b, `<path class="own" d="M%d 13l7 13h-14z"/><text x="%d" y="24">right, of the specialist’s</text>`+"\n", left+345, left+358)
	for _, share := range []float64{0, .25, .5, .75, 1} {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%.0f %%</text>`+"\n",
			left, width-24, y(share), y(share), left-8, y(share)+4, 100*share)
	}
	for i, f := range p.phases {
		x := float64(left + step*i + step/2)
		n := float64(max(f.requests, 1))
		served := float64(f.served) / n
		fmt.Fprintf(&b, `<rect class="bar" x="%.1f" y="%.1f" width="44" height="%.1f"><title>%s: %.1f %% answered by the specialist</title></rect>`,
			x-22, y(served), height*served, html.EscapeString(f.name), 100*served)
		fmt.Fprintf(&b, `<circle class="all" cx="%.1f" cy="%.1f" r="6"/>`, x+34, y(float64(f.right)/n))
		if f.served > 20 {
			fmt.Fprintf(&b, `<path class="own" d="M%.1f %.1fl7 13h-14z"/>`, x-34, y(float64(f.servedRight)/float64(f.served))-7)
		}
		for k, line := range append(wrapped(f.name, 18), fmt.Sprintf("%d tickets", f.requests), fmt.Sprintf("$%.2f per 1,000", 1000*f.spent/n)) {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, top+height+18+15*k, html.EscapeString(line))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/><text x="%d" y="%d">dollars are simulated</text></svg>`+"\n",
		left, width-24, top+height, top+height, left, top-20)
	return b.Bytes()
}

// inWords is the picture for who cannot see it.
func (p *proof) inWords() string {
	var all []string
	for _, f := range p.phases {
		all = append(all, fmt.Sprintf("%s: %d tickets, %d answered by the specialist, %d right, $%.2f", f.name, f.requests, f.served, f.right, f.spent))
	}
	return strings.Join(all, "; ")
}

// wrapped cuts a text into lines of about so many letters.
func wrapped(text string, letters int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+len(word) > letters {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
