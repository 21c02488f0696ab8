package cost

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The plot area of the SVG, in its own units. The right margin holds the labels of the lines.
const (
	svgWidth, svgHeight   = 760.0, 420.0
	plotLeft, plotTop     = 64.0, 56.0
	plotWidth, plotHeight = 470.0, 300.0
	labelGap              = 34.0 // least distance of two labels
	svgFont               = `font-family="system-ui,sans-serif"`
)

// svgStyle holds the colours: Okabe-Ito's, in the four that reach a contrast of 3:1 on white, and four that do on near-black.
// Every line also has its own dashes and its own label, so that no meaning rests on colour.
const svgStyle = `<style>
svg{--bg:#fff;--ink:#1b1f24;--grid:#d8dee4;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#a7558a}
@media(prefers-color-scheme:dark){svg{--bg:#0d1117;--ink:#e6edf3;--grid:#30363d;--c0:#56b4e9;--c1:#e69f00;--c2:#009e73;--c3:#cc79a7}}
.bg{fill:var(--bg)}text{fill:var(--ink);font-size:12px}.t{font-size:15px;font-weight:600}.s{font-size:11px}
.g{stroke:var(--grid);stroke-width:1}.l{fill:none;stroke-width:2.5}.m{stroke:var(--bg);stroke-width:1.5}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1);stroke-dasharray:9 4}.c2{stroke:var(--c2);stroke-dasharray:3 3}.c3{stroke:var(--c3);stroke-dasharray:12 4 3 4}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.v{stroke:var(--ink);stroke-width:1;stroke-dasharray:2 4}
</style>`

// SVG draws the monthly bill against the volume, both logarithmic, with the break-even volumes marked: a picture that stands
// alone, light or dark as its reader prefers, with a title and a description that say the same in words.
func (a *Analysis) SVG() string {
	lines := a.chartLines()
	f := a.frame(lines)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-labelledby="occam-t occam-d" %s>`+"\n",
		svgWidth, svgHeight, svgFont)
	fmt.Fprintf(&b, "<title id=\"occam-t\">Monthly bill against volume</title>\n<desc id=\"occam-d\">%s</desc>\n",
		escaped(a.describeLines(lines)))
	b.WriteString(svgStyle + "\n")
	fmt.Fprintf(&b, `<rect class="bg" width="%g" height="%g"/>`+"\n", svgWidth, svgHeight)
	fmt.Fprintf(&b, `<text class="t" x="%g" y="26">Monthly bill against volume</text>`+"\n", plotLeft)
	b.WriteString(f.gridSVG())
	x := plotLeft + plotWidth*f.x(a.Volume)
	fmt.Fprintf(&b, `<path class="v" d="M%.1f %gV%g"/><text class="s" x="%.1f" y="%g" text-anchor="middle">you: %s</text>`+"\n",
		x, plotTop, plotTop+plotHeight, x, plotTop-6, short(a.Volume))
	for i, l := range lines {
		fmt.Fprintf(&b, `<path class="l c%d" d="%s"/>`+"\n", i, f.path(l.curve))
		if l.cross != nil && *l.cross > f.volumeLow && *l.cross < f.volumeHigh {
			x, y := plotLeft+plotWidth*f.x(*l.cross), plotTop+plotHeight*f.y(l.curve.At(*l.cross))
			fmt.Fprintf(&b, `<circle class="m f%d" cx="%.1f" cy="%.1f" r="5"/><text class="s" x="%.1f" y="%.1f" text-anchor="end">%s</text>`+"\n",
				i, x, y, x-4, y-9, short(*l.cross))
		}
	}
	b.WriteString(a.labelsSVG(lines, f))
	b.WriteString("</svg>\n")
	return b.String()
}

// describeLines says in words what the lines show.
func (a *Analysis) describeLines(lines []chartLine) string {
	var s []string
	for _, l := range lines {
		t := fmt.Sprintf("%s: %s a month at %s requests", l.name, dollars(l.curve.At(a.Volume)), count(a.Volume))
		if l.cross != nil && *l.cross > 0 {
			t += fmt.Sprintf(", cheaper than doing nothing from %s requests a month", count(math.Ceil(*l.cross)))
		}
		s = append(s, t+".")
	}
	return strings.Join(s, " ")
}

func (f frame) gridSVG() string {
	var b strings.Builder
	for v := f.volumeLow; v <= f.volumeHigh*1.001; v *= 10 {
		x := plotLeft + plotWidth*f.x(v)
		fmt.Fprintf(&b, `<path class="g" d="M%.1f %gV%g"/><text x="%.1f" y="%g" text-anchor="middle">%s</text>`+"\n",
			x, plotTop, plotTop+plotHeight, x, plotTop+plotHeight+18, short(v))
	}
	for usd := f.usdLow; usd <= f.usdHigh*1.001; usd *= 10 {
		y := plotTop + plotHeight*f.y(usd)
		fmt.Fprintf(&b, `<path class="g" d="M%g %.1fH%g"/><text x="%g" y="%.1f" text-anchor="end">$%s</text>`+"\n",
			plotLeft, y, plotLeft+plotWidth, plotLeft-8, y+4, short(usd))
	}
	fmt.Fprintf(&b, `<text x="%g" y="%g" text-anchor="middle">requests a month (logarithmic)</text>`+"\n",
		plotLeft+plotWidth/2, plotTop+plotHeight+40)
	return b.String()
}

// path samples a curve evenly in the logarithm of the volume; each new server is drawn as the vertical step that it is.
func (f frame) path(c Curve) string {
	const points = 160
	var b strings.Builder
	previous := 0.0
	for i := range points + 1 {
		volume := f.volumeLow * math.Pow(f.volumeHigh/f.volumeLow, float64(i)/points)
		if n := c.Servers(volume); i > 0 && n > c.Servers(previous) {
			edge := math.Max((n-c.Spare-1)/c.ServersEach, previous)
			fmt.Fprintf(&b, "L%.1f %.1fV%.1f", plotLeft+plotWidth*f.x(edge),
				plotTop+plotHeight*f.y(c.Fixed+c.PerRequest*edge+c.Server*c.Servers(previous)),
				plotTop+plotHeight*f.y(c.Fixed+c.PerRequest*edge+c.Server*n))
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], plotLeft+plotWidth*f.x(volume),
			plotTop+plotHeight*f.y(c.At(volume)))
		previous = volume
	}
	return b.String()
}

// labelsSVG writes the name of each line beside its end, moved apart where they would overlap.
func (a *Analysis) labelsSVG(lines []chartLine, f frame) string {
	type label struct {
		line int
		y    float64
	}
	var labels []label
	for i, l := range lines {
		labels = append(labels, label{i, plotTop + plotHeight*f.y(l.curve.At(f.volumeHigh))})
	}
	slices.SortFunc(labels, func(p, q label) int {
		if p.y != q.y {
			return int(math.Copysign(1, p.y-q.y))
		}
		return p.line - q.line
	})
	for i := 1; i < len(labels); i++ {
		labels[i].y = math.Max(labels[i].y, labels[i-1].y+labelGap)
	}
	if n := len(labels); n > 0 {
		labels[n-1].y = math.Min(labels[n-1].y, plotTop+plotHeight)
		for i := n - 2; i >= 0; i-- {
			labels[i].y = math.Min(labels[i].y, labels[i+1].y-labelGap)
		}
	}
	var b strings.Builder
	x := plotLeft + plotWidth + 8
	for _, l := range labels {
		name, bill := lines[l.line].name, dollars(lines[l.line].curve.At(a.Volume))
		fmt.Fprintf(&b, `<path class="l c%d" d="M%.1f %.1fh22"/><text class="s" x="%.1f" y="%.1f">%s</text><text class="s" x="%.1f" y="%.1f">%s at %s</text>`+"\n",
			l.line, x, l.y-4, x+28, l.y, escaped(clip(name, 34)), x+28, l.y+13, bill, short(a.Volume))
	}
	return b.String()
}

func escaped(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a strings.Builder never fails
	return b.String()
}
