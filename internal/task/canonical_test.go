package task

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What can be read in one way only is read; the rest stays as it is and is no legal value.
func TestCanonicalForms(t *testing.T) {
	for _, c := range []struct{ form, text, want string }{ // want "": refused
		{"date", "2026-03-04", "2026-03-04"}, {"date", "2026/3/4", "2026-03-04"}, {"date", "2026年3月4日", "2026-03-04"},
		{"date", "31.12.2026", "2026-12-31"}, {"date", "12/31/2026", "2026-12-31"}, {"date", "04/04/2026", "2026-04-04"}, {"date", "31. 12. 2026", "2026-12-31"},
		{"date", "03/04/2026", ""}, {"date", "03/04/26", ""}, {"date", "30.02.2026", ""}, {"date", "2026-13-01", ""}, {"date", "13/13/2026", ""},
		{"date", "March 4, 2026", ""}, {"date", "2026-03", ""}, {"date", "31.12-2026", ""}, {"date", "", ""}, {"date", "0/0/2026", ""},
		{"amount", "12.50 EUR", "12.5 EUR"}, {"amount", "EUR 12,50", "12.5 EUR"}, {"amount", "€12", "12 EUR"}, {"amount", "12 €", "12 EUR"}, {"amount", "12\u00a0€", "12 EUR"},
		{"amount", "1.234,56 EUR", "1234.56 EUR"}, {"amount", "USD 1,234.56", "1234.56 USD"}, {"amount", "CHF 1'234.00", "1234 CHF"}, {"amount", "1,234,567 JPY", "1234567 JPY"},
		{"amount", "0.125 KWD", "0.125 KWD"}, {"amount", "0012 EUR", "12 EUR"}, {"amount", "₹99", "99 INR"}, {"amount", "1234.567 KWD", "1234.567 KWD"},
		{"amount", "1,234 EUR", ""}, {"amount", "1.234 EUR", ""}, {"amount", "$12", ""}, {"amount", "£12", ""}, {"amount", "12", ""}, {"amount", "1,23,456 INR", ""},
		{"amount", "EUR 12 USD", ""}, {"amount", "1.2.3 EUR", ""}, {"amount", "12,345.678.9 EUR", ""}, {"amount", "EUR", ""}, {"amount", "1,234.56,7 EUR", ""}, {"amount", "1.2340 KWD", ""},
	} {
		f := Field{Name: "f", Kind: Span, Nullable: true, Normalize: c.form}
		got := NormalizeSpan(c.form, c.text)
		if c.want == "" {
			if got != c.text || f.Check(String(got)) == nil {
				t.Errorf("%s %q: %q, and its check says %v", c.form, c.text, got, f.Check(String(got)))
			}
			continue
		}
		if got != c.want || f.Check(String(got)) != nil || NormalizeSpan(c.form, got) != got {
			t.Errorf("%s %q: %q, want %q; its check says %v", c.form, c.text, got, c.want, f.Check(String(got)))
		}
		if text := "it was " + c.text + ", they said"; !f.StandsIn(String(c.want), text) {
			t.Errorf("%s %q does not stand in %q", c.form, c.want, text)
		}
		if f.StandsIn(String(c.want), "it was 2025-01-01, 77 EUR") {
			t.Errorf("%s %q stands where it does not", c.form, c.want)
		}
		if f.Check(Null) != nil {
			t.Error("null is refused")
		}
	}
	if _, err := ParseSchema([]byte(`{"properties":{"d":{"type":"string","x-occam-normalize":"dtae"}}}`)); err == nil || !strings.Contains(err.Error(), "dtae") {
		t.Errorf("an unknown form: %v", err)
	}
}

// Every day is read back from every writing that is not ambiguous, and from no other as another day.
func TestDatesAreNeverGuessed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rapid.IntRange(0, 20000).Draw(t, "day"))
		layout := rapid.SampledFrom([]string{"2006-01-02", "2006/1/2", "02.01.2006", "1/2/2006", "01-02-2006", "2006年1月2日"}).Draw(t, "layout")
		text := day.Format(layout)
		got, ok := isoDate(text)
		first := strings.HasPrefix(layout, "2006")
		if clear := first || day.Day() > 12 || day.Day() == int(day.Month()); ok != clear || ok && got != day.Format(time.DateOnly) {
			t.Errorf("%q is read as %q, %v", text, got, ok)
		}
	})
}
