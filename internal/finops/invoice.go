package finops

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
)

// An InvoiceLine is one line of a provider's invoice.
type InvoiceLine struct {
	Item     string // model or line item, as the provider calls it
	Date     time.Time
	Amount   cost.Amount
	Decimals int // written after the point: the provider may have rounded to them
}

const (
	maxInvoiceBytes = 256 << 20
	maxInvoiceLines = 2_000_000
)

// Names of columns, lower case, in the order of preference.
var (
	amountColumns = []string{"amount_value", "amount", "cost", "cost_usd", "billedcost", "cost_in_usd", "total", "usd"}
	itemColumns   = []string{"line_item", "model", "model_name", "skuid", "item", "description", "chargedescription",
		"name"}
	dateColumns = []string{"date", "day", "start_time", "start_time_iso", "timestamp", "usage_date_utc",
		"chargeperiodstart"}
	currencyColumns = []string{"amount_currency", "currency", "billingcurrency"}
)

// ReadInvoice reads a provider's invoice or cost export as CSV with a header: it needs a column with amounts in dollars, and
// uses those with the model and the date where it finds them. Amounts are read digit by digit, never through floating point.
func ReadInvoice(r io.Reader) ([]InvoiceLine, error) {
	limited := &io.LimitedReader{R: r, N: maxInvoiceBytes + 1}
	c := csv.NewReader(limited)
	c.FieldsPerRecord, c.TrimLeadingSpace = -1, true
	header, err := c.Read()
	if err != nil {
		return nil, fmt.Errorf("invoice: %w (expected CSV with a header)", err)
	}
	for i := range header {
		header[i] = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(header[i], "\ufeff")))
	}
	column := func(names []string) int {
		for _, n := range names {
			if i := slices.Index(header, n); i >= 0 {
				return i
			}
		}
		return -1
	}
	amount, item, date, currency := column(amountColumns), column(itemColumns), column(dateColumns), column(currencyColumns)
	if amount < 0 {
		return nil, fmt.Errorf("invoice: no column with amounts among %q; one of %q is needed", header, amountColumns)
	}
	var lines []InvoiceLine
	for {
		record, err := c.Read()
		if limited.N <= 0 {
			return nil, fmt.Errorf("invoice: larger than %d MB: export fewer days at a time", maxInvoiceBytes>>20)
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return nil, fmt.Errorf("invoice: %w", err) // csv names the line
		}
		n, _ := c.FieldPos(0)
		if len(lines) >= maxInvoiceLines {
			return nil, fmt.Errorf("invoice: more than %d lines", maxInvoiceLines)
		}
		field := func(i int) string {
			if i < 0 || i >= len(record) {
				return ""
			}
			return strings.TrimSpace(record[i])
		}
		if u := field(currency); u != "" && !strings.EqualFold(u, "usd") {
			return nil, fmt.Errorf("invoice: line %d is in %q; only dollars can be compared with the ledger", n, u)
		}
		l := InvoiceLine{Item: field(item), Date: readDate(field(date)), Decimals: 9}
		if text := field(amount); text != "" { // exports have lines without an amount for days without usage
			if l.Amount, l.Decimals, err = readUSD(text); err != nil {
				return nil, fmt.Errorf("invoice: line %d: %w", n, err)
			}
		}
		lines = append(lines, l)
	}
}

// thousands is an amount with commas where they part thousands. Elsewhere they would be decimal points, which read as 100 times as much.
var thousands = regexp.MustCompile(`^[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.|$)`)

// readUSD reads "1,234.5678", "$0.01", "-3.20" or "(3.20)" exactly. Digits beyond the nano-dollar round half up.
func readUSD(s string) (cost.Amount, int, error) {
	bad := fmt.Errorf("%q is no amount in dollars such as 1,234.56", s)
	text := strings.NewReplacer("$", "", " ", "", "USD", "").Replace(s)
	negative := strings.HasPrefix(text, "-")
	if inside, ok := strings.CutPrefix(text, "("); ok && strings.HasSuffix(inside, ")") {
		text, negative = inside[:len(inside)-1], true
	} else if text != "" && (text[0] == '-' || text[0] == '+') {
		text = text[1:]
	}
	if thousands.MatchString(text) {
		text = strings.ReplaceAll(text, ",", "")
	}
	if mantissa, exponent, scientific := strings.Cut(strings.ToLower(text), "e"); scientific {
		return readScientific(mantissa, exponent, negative, bad)
	}
	whole, fraction, _ := strings.Cut(text, ".")
	if whole+fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" || len(whole) > 10 || len(fraction) > 30 {
		return 0, 0, bad
	}
	padded := fraction + strings.Repeat("0", 10)
	digits, err := strconv.ParseInt("0"+whole+padded[:9], 10, 64)
	if err != nil {
		return 0, 0, bad
	}
	if padded[9] >= '5' {
		digits++
	}
	if negative {
		digits = -digits
	}
	return cost.Amount(digits), len(fraction), nil
}

// readScientific shifts the point of "1.5e-05" and reads the result.
func readScientific(mantissa, exponent string, negative bool, bad error) (cost.Amount, int, error) {
	shift, err := strconv.Atoi(exponent)
	whole, fraction, _ := strings.Cut(mantissa, ".")
	if err != nil || shift < -15 || shift > 9 || len(whole) > 9 || len(fraction) > 20 {
		return 0, 0, bad
	}
	digits := strings.Repeat("0", 16) + whole + fraction + strings.Repeat("0", 10)
	point := 16 + len(whole) + shift
	plain := strings.TrimLeft(digits[:point], "0") + "." + strings.TrimRight(digits[point:], "0")
	if strings.Trim(digits, "0123456789") != "" {
		return 0, 0, bad
	}
	a, n, err := readUSD("0" + plain)
	if negative {
		a = -a
	}
	return a, n, err
}

func readDate(s string) time.Time {
	if unix, err := strconv.ParseInt(s, 10, 64); err == nil && unix > 1e9 && unix < 1e11 {
		return time.Unix(unix, 0).UTC()
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly,
		"01/02/2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// A Reconciliation compares an invoice with the ledger.
type Reconciliation struct {
	Lines      []ReconciledModel `json:"models"`
	Invoice    cost.Amount       `json:"invoice_nano_usd"`
	Ledger     cost.Amount       `json:"ledger_nano_usd"`
	Difference cost.Amount       `json:"difference_nano_usd"` // invoice − ledger
	Low        cost.Amount       `json:"explained_low_nano_usd"`
	High       cost.Amount       `json:"explained_high_nano_usd"` // a difference in [low, high] is explained by estimates and rounding
	Estimated  int64             `json:"estimated_attempts"`
	Unpriced   int64             `json:"unpriced_attempts"`
	Agrees     bool              `json:"agrees"` // the difference is explained, and nothing is unpriced
}

// A ReconciledModel is the part of a reconciliation that belongs to one model.
type ReconciledModel struct {
	Model      string      `json:"model"` // "" for invoice lines that belong to no model of the ledger
	Invoice    cost.Amount `json:"invoice_nano_usd"`
	Ledger     cost.Amount `json:"ledger_nano_usd"`
	Difference cost.Amount `json:"difference_nano_usd"`
	Unpriced   int64       `json:"unpriced_attempts,omitempty"` // what they cost is not in Ledger
}

// Reconcile compares a provider's invoice with the ledger's rows of the same provider and window. A line belongs to the model
// of the ledger whose name its item contains, the longest name first: "gpt-4o-2024-08-06, input" belongs to gpt-4o only where
// the ledger has no gpt-4o-2024-08-06. Differences are explained by estimated attempts (up to their bounds) and by the
// provider's rounding (half a unit of the last decimal of each line).
func Reconcile(invoice []InvoiceLine, rows []Row) Reconciliation {
	var out Reconciliation
	byModel := map[string]*ReconciledModel{}
	var models []string
	at := func(model string) *ReconciledModel {
		if byModel[model] == nil {
			byModel[model] = &ReconciledModel{Model: model}
			models = append(models, model)
		}
		return byModel[model]
	}
	for _, r := range rows {
		if r.Provider == "" {
			continue // answered in the gateway: no invoice knows of it
		}
		at(r.Model).Ledger += r.Cost
		out.Ledger += r.Cost
		out.Low += r.CostLow - r.Cost
		out.High += r.CostHigh - r.Cost
		if r.Estimated {
			out.Estimated += r.Attempts
		}
		if r.Unpriced {
			out.Unpriced += r.Attempts
			at(r.Model).Unpriced += r.Attempts
		}
	}
	known := slices.Clone(models)
	slices.SortFunc(known, func(a, b string) int { return len(b) - len(a) })
	for _, l := range invoice {
		i := slices.IndexFunc(known, func(m string) bool { return m != "" && strings.Contains(l.Item, m) })
		model := ""
		if i >= 0 {
			model = known[i]
		}
		if l.Amount == 0 {
			continue
		}
		at(model).Invoice += l.Amount
		out.Invoice += l.Amount
		if l.Decimals < 9 {
			half := cost.USD / 2
			for range l.Decimals {
				half /= 10
			}
			out.Low, out.High = out.Low-half, out.High+half
		}
	}
	slices.Sort(models)
	for _, m := range models {
		byModel[m].Difference = byModel[m].Invoice - byModel[m].Ledger
		out.Lines = append(out.Lines, *byModel[m])
	}
	out.Difference = out.Invoice - out.Ledger
	out.Agrees = out.Low <= out.Difference && out.Difference <= out.High && out.Unpriced == 0
	return out
}

// Text writes the reconciliation for a terminal.
func (r Reconciliation) Text() string {
	var b strings.Builder
	verdict := "DOES NOT AGREE"
	if r.Agrees {
		verdict = "agrees"
	}
	fmt.Fprintf(&b, "invoice %s  ledger %s  difference %s  %s\n", exact(r.Invoice), exact(r.Ledger), exact(r.Difference), verdict)
	if r.Estimated > 0 || r.Low != 0 || r.High != 0 {
		fmt.Fprintf(&b, "  %d estimated attempts and the rounding of the invoice explain %s to %s\n", r.Estimated,
			exact(r.Low), exact(r.High))
	}
	if r.Unpriced > 0 {
		fmt.Fprintf(&b, "  ! %d attempts are unpriced: the ledger cannot say what they cost\n", r.Unpriced)
	}
	for _, l := range r.Lines {
		name := l.Model
		if name == "" {
			name = "(on the invoice only)"
		}
		unpriced := ""
		if l.Unpriced > 0 {
			unpriced = fmt.Sprintf("   and %d unpriced calls", l.Unpriced)
		}
		fmt.Fprintf(&b, "  %-36s %14s %14s %14s%s\n", name, exact(l.Invoice), exact(l.Ledger), exact(l.Difference), unpriced)
	}
	return b.String()
}

// exact writes an amount with as many decimals as it has, at least two: a difference below a cent is one.
func exact(a cost.Amount) string {
	text := a.String()
	point := strings.IndexByte(text, '.')
	return text[:point+3] + strings.TrimRight(text[point+3:], "0")
}
