package finops

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"occam/internal/cost"
)

// focusColumns are the columns of the export, in order: the 21 that FOCUS 1.2 makes mandatory, those it makes conditional or
// recommends that a gateway can fill, and occam's own with the x_ prefix that the specification asks of them. Savings are only
// ever x_ columns: a negative credit row would change what the invoices add up to. InvoiceId and CommitmentDiscountStatus are
// always null: the gateway sees neither invoices nor commitments.
var focusColumns = []string{
	"BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
	"ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
	"CommitmentDiscountStatus", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceId",
	"InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency",
	"PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "PricingCurrencyListUnitPrice", "PricingQuantity",
	"PricingUnit",
	"ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName", "ResourceType",
	"ServiceCategory",
	"ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId", "SubAccountId",
	"SubAccountName", "Tags", "x_Task", "x_Tier", "x_Audit", "x_Requests", "x_CounterfactualCost", "x_Saving",
	"x_PriceConfidence", "x_Estimated", "x_Simulated",
}

// FocusAccount names who pays, as the rows say it.
type FocusAccount struct {
	ID, Name string
	Span     time.Duration // of a Row: an hour or a day
}

// WriteFOCUS writes rows and charges as a FOCUS 1.2 CSV file, one row for each hour or day, task, model, key and meter. The
// billed costs of a row's meters add up to its Cost to the nano-dollar. Unpriced rows cannot be written, because the format
// knows no missing cost and zero would be a lie: their number of attempts is returned.
func WriteFOCUS(w io.Writer, account FocusAccount, book *cost.Book, rows []Row, charges []Charge) (unpriced int64,
	err error) {
	out := csv.NewWriter(w)
	if err := out.Write(focusColumns); err != nil {
		return 0, err
	}
	for _, r := range rows {
		if r.Unpriced {
			unpriced += r.Attempts
			continue
		}
		for _, m := range meters(book, r) {
			if err := out.Write(account.usage(r, m).record()); err != nil {
				return unpriced, err
			}
		}
	}
	for _, c := range charges {
		for _, f := range account.charged(c) {
			if err := out.Write(f.record()); err != nil {
				return unpriced, err
			}
		}
	}
	out.Flush()
	return unpriced, out.Error()
}

// focusRow is one row by column name; a missing column is null, written empty.
type focusRow map[string]string

// record writes the row. Prices are in dollars, and so are bills: the columns of the pricing currency repeat them.
func (f focusRow) record() []string {
	for of, same := range map[string]string{"PricingCurrencyContractedUnitPrice": "ContractedUnitPrice",
		"PricingCurrencyEffectiveCost": "EffectiveCost", "PricingCurrencyListUnitPrice": "ListUnitPrice"} {
		f[of] = f[same]
	}
	out := make([]string, len(focusColumns))
	for i, c := range focusColumns {
		out[i] = plainCell(f[c])
	}
	return out
}

// plainCell keeps a spreadsheet from taking a name that somebody chose, such as a model's, for a formula: an apostrophe before it
// makes it text (OWASP, CSV Injection). Numbers stay numbers.
func plainCell(text string) string {
	if text == "" || !strings.ContainsRune("=+-@\t\r\n|%", rune(text[0])) {
		return text
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return text
	}
	return "'" + text
}

// A meter is one kind of token of a row, with its share of the cost.
type meter struct {
	name     string
	quantity int64
	rate     cost.Rate
	cost     cost.Amount
	price    cost.Price
	priced   bool // the list price is known
}

// meters splits the cost of a row among its kinds of tokens, in proportion to their list prices. What rounding leaves over
// goes to the largest, so that the parts add up exactly.
func meters(book *cost.Book, r Row) []meter {
	if r.Provider == "" {
		return []meter{{name: "Requests", quantity: r.Attempts, cost: r.Cost}}
	}
	p, ok := book.Lookup(r.Provider, r.Model, r.Start)
	var all []meter
	for _, m := range []meter{
		{name: "Input Tokens", quantity: r.Usage.Input - r.Usage.Cached - r.Usage.CacheWrite, rate: p.Input},
		{name: "Cached Input Tokens", quantity: r.Usage.Cached, rate: p.Cached},
		{name: "Cache Write Tokens", quantity: r.Usage.CacheWrite, rate: p.CacheWrite},
		{name: "Output Tokens", quantity: r.Usage.Output, rate: p.Output},
	} {
		if m.quantity > 0 {
			m.price, m.priced = p, ok
			all = append(all, m)
		}
	}
	if len(all) == 0 {
		return []meter{{name: "Requests", quantity: r.Attempts, cost: r.Cost}}
	}
	list := 0.0
	for _, m := range all {
		list += m.rate.USDPerMTok() * float64(m.quantity)
	}
	left, largest := r.Cost, 0
	for i, m := range all {
		if list > 0 {
			all[i].cost = cost.FromUSD(r.Cost.USD() * m.rate.USDPerMTok() * float64(m.quantity) / list)
		}
		left -= all[i].cost
		if all[i].cost > all[largest].cost {
			largest = i
		}
	}
	all[largest].cost += left
	return all
}

func (a FocusAccount) usage(r Row, m meter) focusRow {
	provider, meterUnit, divisor := r.Provider, "Tokens", int64(1_000_000)
	if provider == "" {
		provider = "occam"
	}
	if m.name == "Requests" {
		meterUnit, divisor = "Requests", 1
	}
	f := a.common(provider, r.Start, r.Start.Add(a.Span), m.cost, m.cost)
	what := r.Model
	if what == "" {
		what = r.Tier
	}
	f.set("ChargeDescription", fmt.Sprintf("%s, %s", what, strings.ToLower(m.name)))
	f.set("ChargeFrequency", "Usage-Based")
	f.set("ServiceCategory", "AI and Machine Learning")
	f.set("ServiceSubcategory", "Generative AI")
	f.set("ServiceName", provider+" models")
	f.set("ConsumedQuantity", strconv.FormatInt(m.quantity, 10))
	f.set("ConsumedUnit", meterUnit)
	f.set("PricingCategory", "Standard")
	f.set("PricingQuantity", decimal(float64(m.quantity)/float64(divisor)))
	f.set("PricingUnit", map[bool]string{true: "1000000 Tokens", false: "Requests"}[divisor > 1])
	f.set("SkuId", what)
	f.set("SkuPriceId", what)
	f.set("SkuMeter", m.name)
	f.set("x_PriceConfidence", "")
	if m.priced {
		f.set("ListUnitPrice", decimal(m.rate.USDPerMTok()))
		f.set("ListCost", amount(cost.FromUSD(m.rate.USDPerMTok()*float64(m.quantity)/1e6)))
		f.set("SkuPriceId", m.price.Version())
		f.set("x_PriceConfidence", string(m.price.Confidence))
	}
	if m.quantity > 0 {
		paid := decimal(m.cost.USD() / (float64(m.quantity) / float64(divisor)))
		f.set("ContractedUnitPrice", paid)
		if !m.priced { // the ledger knew a price that the book no longer has
			f.set("ListUnitPrice", paid)
		}
	}
	f.task(r.Task, r.Key)
	f.set("x_Tier", r.Tier)
	f.set("x_Audit", strconv.FormatBool(r.Audit))
	f.set("x_Estimated", strconv.FormatBool(r.Estimated))
	f.set("x_Simulated", strconv.FormatBool(r.Simulated))
	if counts := m.name == "Output Tokens" || m.name == "Requests"; counts &&
		r.Answered { // on one meter only, so that sums are right
		f.set("x_Requests", strconv.FormatInt(r.Attempts, 10))
		if r.Task != "" && r.Reference != 0 {
			f.set("x_CounterfactualCost", amount(r.Reference))
			f.set("x_Saving", amount(r.Reference-r.Cost))
		}
	}
	return f
}

// service is how FOCUS sorts a kind of charge.
var service = map[ChargeKind]struct{ category, subcategory, meter string }{
	Hosting:  {"Compute", "Virtual Machines", "Hours"},
	Training: {"AI and Machine Learning", "Machine Learning", "Training Runs"},
	Labels:   {"Other", "Other (Other)", "Labels"},
}

// charged writes a charge; a server becomes two rows, the hours it worked and those it stood idle.
func (a FocusAccount) charged(c Charge) []focusRow {
	if c.Kind != Hosting {
		return []focusRow{a.charge(c, c.Amount, 1, "Units", service[c.Kind].meter)}
	}
	if c.Busy <= 0 || c.Busy >= 1 {
		meter := map[bool]string{true: "Idle Hours", false: "Hours"}[c.Busy == 0]
		return []focusRow{a.charge(c, c.Amount, c.Hours, "Hours", meter)}
	}
	busy := cost.FromUSD(c.Amount.USD() * c.Busy)
	return []focusRow{a.charge(c, busy, c.Hours*c.Busy, "Hours", "Hours"), a.charge(c, c.Amount-busy, c.Hours*(1-c.Busy), "Hours", "Idle Hours")}
}

// charge writes one row of a charge: so many units of a meter.
func (a FocusAccount) charge(c Charge, billed cost.Amount, quantity float64, unit, meter string) focusRow {
	vendor := "unknown"
	if c.Kind == Hosting {
		vendor, _, _ = strings.Cut(c.What, " ")
	}
	f := a.common(vendor, c.Start, c.End, billed, billed)
	sort := service[c.Kind]
	for column, value := range map[string]string{
		"ChargeDescription": fmt.Sprintf("%s %s, %s", c.Kind, c.What, strings.ToLower(meter)), "ChargeFrequency": "Usage-Based",
		"ServiceCategory": sort.category, "ServiceSubcategory": sort.subcategory, "ServiceName": cmp.Or(c.What, string(c.Kind)),
		"PricingCategory": "Standard", "SkuId": cmp.Or(c.What, string(c.Kind)), "SkuPriceId": cmp.Or(c.What, string(c.Kind)), "SkuMeter": meter,
		"ConsumedQuantity": decimal(quantity), "ConsumedUnit": unit, "PricingQuantity": decimal(quantity), "PricingUnit": unit,
	} {
		f.set(column, value)
	}
	price := 0.0
	if quantity > 0 {
		price = billed.USD() / quantity
	}
	f.set("ListUnitPrice", decimal(price))
	f.set("ContractedUnitPrice", decimal(price))
	f.task(c.Task, "")
	return f
}

// common fills in what every row has: who pays whom, when, and the cost columns. Billed and list cost agree until a row says
// otherwise: the gateway sees list prices, not contracts.
func (a FocusAccount) common(provider string, from, to time.Time, billed, effective cost.Amount) focusRow {
	month := time.Date(from.UTC().Year(), from.UTC().Month(), 1, 0, 0, 0, 0, time.UTC)
	f := focusRow{}
	for name, v := range map[string]string{
		"BilledCost": amount(billed), "EffectiveCost": amount(effective), "ListCost": amount(billed),
		"ContractedCost":   amount(billed),
		"BillingAccountId": a.ID, "BillingAccountName": a.Name, "BillingCurrency": "USD", "PricingCurrency": "USD",
		"BillingPeriodStart": stamp(month), "BillingPeriodEnd": stamp(month.AddDate(0, 1, 0)),
		"ChargePeriodStart": stamp(from), "ChargePeriodEnd": stamp(to), "ChargeCategory": "Usage",
		"ProviderName": provider, "PublisherName": provider, "InvoiceIssuerName": provider,
	} {
		f.set(name, v)
	}
	return f
}

// task writes the columns that allocate a row.
func (f focusRow) task(task, key string) {
	f.set("x_Task", task)
	if task != "" {
		f.set("ResourceId", "task/"+task)
		f.set("ResourceName", task)
		f.set("ResourceType", "Task")
	}
	f.set("SubAccountId", key)
	f.set("SubAccountName", key)
	tags := map[string]string{}
	if task != "" {
		tags["task"] = task
	}
	raw, _ := json.Marshal(tags) // a map of strings always marshals
	f.set("Tags", string(raw))
}

func (f focusRow) set(column, value string) { f[column] = value }

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

// amount writes dollars with all nine decimals, exactly.
func amount(a cost.Amount) string { return strings.Replace(a.String(), "$", "", 1) }

func decimal(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
