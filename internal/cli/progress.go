package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A progress shows how far long work is: a bar on a terminal, a line per 10 % elsewhere.
type progress struct {
	out     io.Writer
	label   string
	total   int
	bar     *progressbar.ProgressBar
	tenths  int
	started time.Time
	now     func() time.Time
}

func (a *app) newProgress(label string, total int) *progress {
	p := &progress{out: a.stderr, label: label, total: max(total, 1), started: a.now(), now: a.now}
	if terminal(a.stderr) && a.getenv("TERM") != "dumb" {
		p.bar = progressbar.NewOptions(p.total,
			progressbar.OptionSetWriter(a.stderr), progressbar.OptionSetDescription(label), progressbar.OptionSetWidth(24),
			progressbar.OptionEnableColorCodes(false), progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionUseANSICodes(true),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "█", SaucerPadding: " ", BarStart: "▕", BarEnd: "▏"}))
	}
	return p
}

// set moves to done; note, if any, is shown behind the label.
func (p *progress) set(done int, note string) {
	if p.bar != nil {
		p.bar.Describe(p.text(note))
		_ = p.bar.Set(min(done, p.total)) // a bar that cannot be drawn is no reason to stop
		return
	}
	if tenths := done * 10 / p.total; tenths > p.tenths {
		p.tenths = tenths
		fmt.Fprintf(p.out, "%s %d %%\n", p.text(note), tenths*10)
	}
}

// finish leaves one line that says what was done and how long it took.
func (p *progress) finish(note string) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.out, "%s  %.1f s\n", p.text(note), p.now().Sub(p.started).Seconds())
}

func (p *progress) text(note string) string {
	if note == "" {
		return p.label
	}
	return p.label + "  " + note
}
