package task

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What can be read in one way only is read; the rest stays as it is and is no legal value.
func TestCanonicalForms(t *testing.T) {
	for _, c := range []struct{ form, text, want string }{ // want "": refused
		{"date", "2026-03-04", "2026-03-04"}, {"date", "2026/3/4", "2026-03-04"}, {"date", "2026年3月4日", "2026-03-04"},
		{"date", "31.12.2026", "2026-12-31"}, {"date", "12/31/2026", "2026-12-31"}, {"date", "04/04/2026", "2026-04-04"}, {"date", "31. 12. 2026", "2026-12-31"}, {"date", "２０２６年１２月３１日", "2026-12-31"}, {"date", "2026년 12월 31일", "2026-12-31"}, {"date", "٣١/١٢/٢٠٢٦", "2026-12-31"},
		{"date", "03/04/2026", ""}, {"date", "03/04/26", ""}, {"date", "30.02.2026", ""}, {"date", "2026-13-01", ""}, {"date", "13/13/2026", ""},
		{"date", "March 4, 2026", ""}, {"date", "2026-03", ""}, {"date", "31.12-2026", ""}, {"date", "", ""}, {"date", "0/0/2026", ""},
		{"amount", "12.50 EUR", "12.5 EUR"}, {"amount", "EUR 12,50", "12.5 EUR"}, {"amount", "€12", "12 EUR"}, {"amount", "12 €", "12 EUR"}, {"amount", "12\u00a0€", "12 EUR"},
		{"amount", "1.234,56 EUR", "1234.56 EUR"}, {"amount", "1.234,50 €", "1234.5 EUR"}, {"amount", "1\u202f234,50\u00a0€", "1234.5 EUR"}, {"amount", "12,500.50円", "12500.5 JPY"}, {"amount", "９，９９９．５０円", "9999.5 JPY"}, {"amount", "USD 1,234.56", "1234.56 USD"}, {"amount", "CHF 1'234.00", "1234 CHF"}, {"amount", "1,234,567 JPY", "1234567 JPY"},
		{"amount", "0.125 KWD", "0.125 KWD"}, {"amount", "0012 EUR", "12 EUR"}, {"amount", "₹99", "99 INR"}, {"amount", "1234.567 KWD", "1234.567 KWD"},
		{"amount", "1,234 EUR", ""}, {"amount", "1.234 EUR", ""}, {"amount", "$12", ""}, {"amount", "£12", ""}, {"amount", "12", ""}, {"amount", "¥12", ""}, {"amount", "12 Euro", ""}, {"amount", "12 kr", ""}, {"amount", "1,23,456 INR", ""},
		{"amount", "EUR 12 USD", ""}, {"amount", "1.2.3 EUR", ""}, {"amount", "12,345.678.9 EUR", ""}, {"amount", "EUR", ""}, {"amount", "1,234.56,7 EUR", ""}, {"amount", "1.2340 KWD", ""},
	} {
		f := Field{Name: "f", Kind: Span, Nullable: true, Normalize: c.form}
		got := NormalizeSpan(c.form, c.text, nil)
		if c.want == "" {
			if got != c.text || f.Check(String(got)) == nil {
				t.Errorf("%s %q: %q, and its check says %v", c.form, c.text, got, f.Check(String(got)))
			}
			continue
		}
		if got != c.want || f.Check(String(got)) != nil || NormalizeSpan(c.form, got, nil) != got {
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
		got := NormalizeSpan("date", text, nil)
		ok := isCanonical("date", got)
		first := strings.HasPrefix(layout, "2006")
		if clear := first || day.Day() > 12 || day.Day() == int(day.Month()); ok != clear || ok && got != day.Format(time.DateOnly) {
			t.Errorf("%q is read as %q, %v", text, got, ok)
		}
	})
}

// What doubtful writing means is what the labels of the field say, where enough of them agree.
func TestMeaningsAreLearnedFromLabels(t *testing.T) {
	for _, c := range []struct {
		form          string
		spans, values []string
		read          map[string]string // "" for what must not be read
	}{
		{"amount", []string{"$12.50", "$7", "$1,250.00"}, []string{"12.5 USD", "7 USD", "1250 USD"}, map[string]string{"$99.95": "99.95 USD", "£99.95": ""}},
		{"amount", []string{"$12.50", "$7.25", "$1,250"}, []string{"12.5 CAD", "7.25 CAD", "1250 CAD"}, map[string]string{"$9,999": "9999 CAD", "9.999 EUR": ""}},
		{"amount", []string{"$1", "$2", "$3"}, []string{"1 CAD", "2 USD", "3 CAD"}, map[string]string{"$9": ""}},
		{"amount", []string{"12 Euro", "7 Euro", "1.250,50 Euro"}, []string{"12 EUR", "7 EUR", "1250.5 EUR"}, map[string]string{"8,5 Euro": "8.5 EUR", "8 euro": "8 EUR", "1.250 Euro": ""}},
		{"amount", []string{"1,50 €", "2,25 €", "3,75 €"}, []string{"1.5 EUR", "2.25 EUR", "3.75 EUR"}, map[string]string{"1.250 €": "1250 EUR", "1,250 €": ""}},
		{"amount", []string{"1,50 €", "2,25 €", "3.75 €"}, []string{"1.5 EUR", "2.25 EUR", "3.75 EUR"}, map[string]string{"1.250 €": "", "1,250 €": "", "8,5 €": "8.5 EUR"}},
		{"amount", []string{"￥１，２００", "¥900", "¥1,000"}, []string{"1200 JPY", "900 JPY", "1000 JPY"}, map[string]string{"¥500": "500 JPY", "¥1,500": ""}},
		{"date", []string{"03/04/2026", "31/01/2026", "05/06/2026"}, []string{"2026-04-03", "2026-01-31", "2026-06-05"}, map[string]string{"07/08/2026": "2026-08-07", "07.08.2026": "", "7/8/26": ""}},
		{"date", []string{"03/04/26", "12/31/26", "05/06/26"}, []string{"2026-03-04", "2026-12-31", "2026-05-06"}, map[string]string{"07/08/26": "2026-07-08", "7/8/2026": "2026-07-08", "31/12/26": "2026-12-31"}},
		{"date", []string{"03/04/2026", "31/01/2026", "05/06/2026"}, []string{"2026-04-03", "2026-01-31", "2026-05-06"}, map[string]string{"07/08/2026": ""}},
		{"date", []string{"3. März 2026", "14. März 2025", "März 9, 2024"}, []string{"2026-03-03", "2025-03-14", "2024-03-09"}, map[string]string{"30. März 2026": "2026-03-30", "MÄRZ 1, 2026": "2026-03-01", "30. Mai 2026": "", "31. März 26": ""}},
		{"date", []string{"3rd of May 2026", "1 de mayo de 2026", "May 4th, 2026", "May 1, 2025", "1 May 2024"}, []string{"2026-05-03", "2026-05-01", "2026-05-04", "2025-05-01", "2024-05-01"}, map[string]string{"2 May 2026": "2026-05-02", "2 de mayo de 2026": ""}},
	} {
		known := LearnMeanings(c.form, c.spans, c.values)
		for text, want := range c.read {
			if want == "" {
				want = text
			}
			if got := NormalizeSpan(c.form, text, known); got != want {
				t.Errorf("%s %q after %q: %q, want %q; known: %v", c.form, text, c.spans, got, want, known)
			}
		}
	}
}

// A date stays out of a schema's way: its own format is enough to say what a field is.
func TestFormatDateIsADateField(t *testing.T) {
	fields, err := ParseSchema([]byte(`{"type":"object","properties":{"due":{"type":["string","null"],"format":"date"},"paid":{"type":"string","x-occam-normalize":"amount"},
		"raw":{"type":"string","format":"date","x-occam-normalize":"lower"},"day":{"anyOf":[{"type":"string","format":"date"},{"type":"null"}]},"mail":{"type":"string","format":"email"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"date", "amount", "lower", "date", ""} {
		if fields[i].Normalize != want || fields[i].Kind != Span {
			t.Errorf("%+v, want form %q", fields[i], want)
		}
	}
	again, err := ParseSchema(Schema(fields))
	if err != nil || !reflect.DeepEqual(again, fields) {
		t.Errorf("%v: written and read again they are %+v", err, again)
	}
}

// TestInferCanonicalSpans: dates and amounts whose labels are in canonical form are told from the data alone.
func TestInferCanonicalSpans(t *testing.T) {
	var examples []Example
	for i := range 40 {
		day := time.Date(2026, 1, 1+9*i, 0, 0, 0, 0, time.UTC)
		examples = append(examples, Example{Text: fmt.Sprintf("Am %s bezahlte ich %d,50 €, Nummer A-%d", day.Format("02.01.2006"), 10+i, i),
			Labels: Output{"day": String(day.Format(time.DateOnly)), "paid": String(fmt.Sprintf("%d.5 EUR", 10+i)), "number": String(fmt.Sprintf("A-%d", i))}})
	}
	fields, err := InferFields(examples)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range fields {
		got[f.Name] = string(f.Kind) + " " + f.Normalize
	}
	if want := map[string]string{"day": "span date", "paid": "span amount", "number": "span "}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A part of a longer number is neither an amount nor a date.
func TestPartsOfNumbersAreNoValues(t *testing.T) {
	amount, day := Field{Name: "total", Kind: Span, Normalize: "amount"}, Field{Name: "day", Kind: Span, Normalize: "date"}
	for _, tc := range []struct {
		field       Field
		value, text string
		stands      bool
	}{
		{amount, "234.5 EUR", "zusammen 1 234,50 €, bitte", false},
		{amount, "234.5 EUR", "zusammen 1\u00a0234,50 €, bitte", false},
		{amount, "1234.5 EUR", "zusammen 1\u00a0234,50 €, bitte", true},
		{amount, "1 EUR", "EUR 1 234,50", false},
		{amount, "234 EUR", "1 234 €", false},
		{amount, "50 EUR", "it costs .50 €", false},
		{amount, "50 EUR", "I paid that.50 € is too much", true},
		{amount, "50 EUR", "Order 12: 50 €", true},
		{amount, "50 EUR", "€ 50 for 3 days", true},
		{amount, "12.5 EUR", "Widget 2 12.50 €", true},
		{amount, "125 EUR", "invoice 20261234 125.00 €", true},
		{day, "2026-03-12", "ref 4412 März 2026", false},
		{day, "2026-03-12", "ref 44 12 März 2026", true},
		{day, "2026-03-13", "13 März 20261", false},
		{day, "2026-03-13", "13 März 2026 10:00", true},
		{day, "2026-03-13", "at 13.03.2026", true},
	} {
		if got := tc.field.StandsIn(String(tc.value), tc.text); got != tc.stands {
			t.Errorf("%q in %q: %v", tc.value, tc.text, got)
		}
	}
}
