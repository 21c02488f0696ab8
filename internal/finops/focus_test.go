package finops

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"occam/internal/cost"
)

// everyKindOfRow is a month with each kind of row and charge that the export knows.
func everyKindOfRow() ([]Row, []Charge) {
	rows := month()
	rows[1].Usage.Cached, rows[1].Usage.CacheWrite, rows[1].Key = 1000, 10, "key-1"
	usage := cost.Usage{Input: 5, Output: 7}
	rows = append(rows,
		Row{Start: from, Provider: "openai", Model: "not in the book any more", Answered: true, Attempts: 2, Cost: usd(1), Usage: usage},
		Row{Start: from.Add(5 * time.Hour), Task: "tickets", Provider: "gpu", Model: "llama", Tier: "llama-3.2-3b", Answered: true, Attempts: 2, Usage: usage},
		Row{Start: from, Task: "tickets", Provider: "openai", Model: "gpt-4o", Estimated: true, Attempts: 1, Cost: usd(0.01), CostHigh: usd(0.01), Simulated: true},
		Row{Start: from, Provider: "x", Model: "y", Unpriced: true, Attempts: 4, Usage: usage})
	return rows, []Charge{
		{Kind: Hosting, What: "aws g5.xlarge", Start: from, End: to, Amount: usd(748.464), Hours: 744, Busy: 0.039},
		{Kind: Hosting, What: "aws g6.xlarge", Start: from, End: to, Amount: usd(10), Hours: 12},
		{Kind: Training, What: "fine-tune", Task: "tickets", Start: from, End: to, Amount: usd(10)},
		{Kind: Labels, Task: "tickets", Start: from, End: to, Amount: usd(80)}}
}

func exportFOCUS(t *testing.T) (file []byte, rows []map[string]string) {
	t.Helper()
	ledger, charges := everyKindOfRow()
	var b bytes.Buffer
	unpriced, err := WriteFOCUS(&b, FocusAccount{ID: "acme", Name: "Acme", Span: time.Hour}, cost.Default(), ledger, charges)
	if err != nil || unpriced != 4 {
		t.Fatal(unpriced, err)
	}
	records, err := csv.NewReader(bytes.NewReader(b.Bytes())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records[1:] {
		row := map[string]string{}
		for i, name := range records[0] {
			row[name] = r[i]
		}
		rows = append(rows, row)
	}
	return b.Bytes(), rows
}

// What FOCUS 1.2 says of a column, from its published requirements: its type, and whether it may be null. "usage" may not be null
// in rows of the category Usage, which all rows of the export are.
var focusSpec = map[string]struct {
	kind     string // decimal, string, time, currency, json
	null     string // never, usage, maybe
	allowed  []string
	positive bool
}{
	"BilledCost": {kind: "decimal", null: "never"}, "EffectiveCost": {kind: "decimal", null: "never"}, "ListCost": {kind: "decimal", null: "never"},
	"ContractedCost": {kind: "decimal", null: "never"}, "ListUnitPrice": {kind: "decimal", null: "usage", positive: true},
	"ContractedUnitPrice": {kind: "decimal", null: "usage", positive: true}, "PricingQuantity": {kind: "decimal", null: "usage"},
	"ConsumedQuantity": {kind: "decimal", null: "usage"}, "PricingCurrencyContractedUnitPrice": {kind: "decimal", null: "usage", positive: true},
	"PricingCurrencyEffectiveCost": {kind: "decimal", null: "never"}, "PricingCurrencyListUnitPrice": {kind: "decimal", null: "usage", positive: true},
	"BillingAccountId": {kind: "string", null: "never"}, "BillingAccountName": {kind: "string", null: "maybe"},
	"BillingCurrency": {kind: "currency", null: "never"}, "PricingCurrency": {kind: "currency", null: "never"},
	"BillingPeriodStart": {kind: "time", null: "never"}, "BillingPeriodEnd": {kind: "time", null: "never"},
	"ChargePeriodStart": {kind: "time", null: "never"}, "ChargePeriodEnd": {kind: "time", null: "never"},
	"ChargeCategory": {kind: "string", null: "never", allowed: []string{"Usage", "Purchase", "Tax", "Credit", "Adjustment"}},
	"ChargeClass":    {kind: "string", null: "maybe", allowed: []string{"Correction"}}, "ChargeDescription": {kind: "string", null: "maybe"},
	"ChargeFrequency":          {kind: "string", null: "never", allowed: []string{"One-Time", "Recurring", "Usage-Based"}},
	"CommitmentDiscountStatus": {kind: "string", null: "maybe", allowed: []string{"Used", "Unused"}},
	"ConsumedUnit":             {kind: "string", null: "usage"}, "PricingUnit": {kind: "string", null: "usage"},
	"InvoiceId": {kind: "string", null: "maybe"}, "InvoiceIssuerName": {kind: "string", null: "never"},
	"PricingCategory": {kind: "string", null: "usage", allowed: []string{"Standard", "Dynamic", "Committed", "Other"}},
	"ProviderName":    {kind: "string", null: "never"}, "PublisherName": {kind: "string", null: "never"},
	"RegionId": {kind: "string", null: "maybe"}, "RegionName": {kind: "string", null: "maybe"},
	"ResourceId": {kind: "string", null: "maybe"}, "ResourceName": {kind: "string", null: "maybe"}, "ResourceType": {kind: "string", null: "maybe"},
	"ServiceCategory": {kind: "string", null: "never", allowed: []string{"AI and Machine Learning", "Compute", "Other"}},
	"ServiceName":     {kind: "string", null: "never"}, "ServiceSubcategory": {kind: "string", null: "never"},
	"SkuId": {kind: "string", null: "usage"}, "SkuMeter": {kind: "string", null: "usage"}, "SkuPriceId": {kind: "string", null: "usage"},
	"SkuPriceDetails": {kind: "json", null: "maybe"}, "SubAccountId": {kind: "string", null: "maybe"}, "SubAccountName": {kind: "string", null: "maybe"},
	"Tags": {kind: "json", null: "maybe"},
}

// mandatory are the columns that every FOCUS 1.2 dataset has.
var mandatory = []string{"BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
	"ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost",
	"InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"}

var (
	decimalFormat = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	timeFormat    = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$`)
	unitFormat    = regexp.MustCompile(`^([0-9]+ )?[A-Z][A-Za-z-]*s( [A-Z][A-Za-z]*)?$`) // a plural, with a quantity if it is not one
	customFormat  = regexp.MustCompile(`^x_[A-Z][A-Za-z]*$`)
)

func TestFOCUSKeepsTheSpecification(t *testing.T) {
	for _, name := range mandatory {
		if !slices.Contains(focusColumns, name) {
			t.Errorf("the mandatory column %s is missing", name)
		}
	}
	if dup := slices.Compact(slices.Sorted(slices.Values(focusColumns))); len(dup) != len(focusColumns) {
		t.Error("a column stands there twice")
	}
	_, rows := exportFOCUS(t)
	if len(rows) < 16 {
		t.Errorf("only %d rows", len(rows))
	}
	for _, row := range rows {
		for _, name := range focusColumns {
			checkFOCUS(t, name, row[name])
		}
		checkFOCUSRow(t, row)
	}
}

func checkFOCUS(t *testing.T, name, value string) {
	t.Helper()
	spec, known := focusSpec[name]
	if !known {
		if !customFormat.MatchString(name) {
			t.Errorf("%s is neither a column of FOCUS nor one with x_", name)
		}
		return
	}
	switch {
	case value == "" && spec.null != "maybe":
		t.Errorf("%s is null", name)
	case value == "":
		return
	case strings.EqualFold(value, "null"), strings.TrimSpace(value) != value:
		t.Errorf("%s is %q", name, value)
	case spec.kind == "decimal" && !decimalFormat.MatchString(value), spec.positive && strings.HasPrefix(value, "-"),
		spec.kind == "time" && !timeFormat.MatchString(value), spec.kind == "currency" && value != "USD",
		spec.allowed != nil && !slices.Contains(spec.allowed, value), strings.HasSuffix(name, "Unit") && !unitFormat.MatchString(value):
		t.Errorf("%s is %q", name, value)
	}
	var object map[string]string
	if spec.kind == "json" && json.Unmarshal([]byte(value), &object) != nil {
		t.Errorf("%s is %q, no key-value object", name, value)
	}
}

// checkFOCUSRow looks at what columns say about each other.
func checkFOCUSRow(t *testing.T, row map[string]string) {
	t.Helper()
	number := func(name string) float64 {
		v, err := strconv.ParseFloat(row[name], 64)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	near := func(what string, a, b float64) {
		if math.Abs(a-b) > 1e-6*math.Max(1, math.Abs(b)) {
			t.Errorf("%s: %g and %g, in %v", what, a, b, row)
		}
	}
	near("ListCost is not ListUnitPrice × PricingQuantity", number("ListCost"), number("ListUnitPrice")*number("PricingQuantity"))
	near("ContractedCost is not ContractedUnitPrice × PricingQuantity", number("ContractedCost"), number("ContractedUnitPrice")*number("PricingQuantity"))
	if number("BilledCost") < 0 || row["ChargeCategory"] == "Credit" {
		t.Errorf("a negative or credited charge: %v", row)
	}
	for _, pair := range [][2]string{{"BillingPeriodStart", "ChargePeriodStart"}, {"ChargePeriodStart", "ChargePeriodEnd"}, {"ChargePeriodEnd", "BillingPeriodEnd"}} {
		if row[pair[0]] > row[pair[1]] {
			t.Errorf("%s %s is after %s %s", pair[0], row[pair[0]], pair[1], row[pair[1]])
		}
	}
	if (row["SkuId"] == "") != (row["SkuPriceId"] == "") || (row["ResourceId"] == "") != (row["ResourceType"] == "") || (row["SubAccountId"] == "") != (row["SubAccountName"] == "") {
		t.Errorf("a pair of columns is half null: %v", row)
	}
}

// TestFOCUSValidator asks the FinOps Foundation's own focus-validator (2.2.1 knows FOCUS 1.2), installed in a Python environment
// that OCCAM_FOCUS_VALIDATOR names; `make focus` makes one. Of its rules one must fail: InvoiceId-C-005 wants a number in every row, as
// is right for charges on an invoice, and InvoiceId-C-004 wants one in no row, as is right for the others. A file without the column
// fails seven.
func TestFOCUSValidator(t *testing.T) {
	python := filepath.Join(os.Getenv("OCCAM_FOCUS_VALIDATOR"), "bin", "python")
	if os.Getenv("OCCAM_FOCUS_VALIDATOR") == "" {
		t.Skip("no focus-validator: `make focus` installs it and runs this")
	}
	file, _ := exportFOCUS(t)
	path := filepath.Join(t.TempDir(), "focus.csv")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	where, err := exec.Command(python, "-c", "import focus_validator, os; print(os.path.dirname(os.path.dirname(focus_validator.__file__)))").Output()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.Command(filepath.Join(filepath.Dir(python), "focus-validator"), "--data-file", path, "--validate-version", "1.2.0.1", "--block-download",
		"--applicability-criteria", "ACCOUNT_NAMING_SUPPORTED,PUBLIC_PRICE_LIST_SUPPORTED,NEGOTIATED_PRICING_SUPPORTED,USAGE_MEASUREMENT_SUPPORTED,"+
			"UNIT_PRICING_SUPPORTED,SUB_ACCOUNT_SUPPORTED,BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED,RESOURCE_TYPE_ASSIGNMENT_SUPPORTED,TAGGING_SUPPORTED")
	run.Dir = strings.TrimSpace(string(where)) // it finds its own files from there only
	out, _ := run.CombinedOutput()             // its exit code says only that a rule failed
	var failed []string
	for _, m := range regexp.MustCompile(`(?m)^\S+ ([A-Za-z]+-[A-Z]-[0-9]+-[A-Z]): FAIL`).FindAllStringSubmatch(string(out), -1) {
		failed = append(failed, m[1])
	}
	totals := regexp.MustCompile(`Total: ([0-9]+) \| Pass: ([0-9]+) \| Fail: ([0-9]+)`).FindStringSubmatch(string(out))
	if len(totals) != 4 {
		t.Fatalf("the validator says:\n%s", out)
	}
	if passed, _ := strconv.Atoi(totals[2]); passed < 200 || strings.Join(failed, " ") != "InvoiceId-C-005-C" {
		t.Errorf("%s; failed: %v", totals[0], failed)
	}
	t.Log(totals[0])
}

// TestFOCUSHoldsNoFormula (S16): names that begin like a formula are text in a spreadsheet, whichever column they stand in, and
// negative amounts stay numbers.
func TestFOCUSHoldsNoFormula(t *testing.T) {
	var out bytes.Buffer
	var rows []Row
	for _, start := range []string{"=", "+", "-", "@", "\t", "\r", "=cmd|' /C calc'!A", "-2+3+cmd|' /C calc'!A", "@SUM(1+1)*cmd", "+1+1"} {
		name := start + "x"
		rows = append(rows, Row{Start: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), Task: name, Tier: name, Provider: name, Model: name, Key: name, Attempts: 1, Answered: true,
			Cost: 5, CostLow: 5, CostHigh: 5, Usage: cost.Usage{Input: 1}})
	}
	if _, err := WriteFOCUS(&out, FocusAccount{ID: "=acme", Name: "@acme", Span: time.Hour}, cost.Default(), rows, nil); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&out).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, line := range lines[1:] {
		for i, cell := range line {
			if cell == "" || !strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				names += strings.Count(cell, "'")
				continue
			}
			if _, err := strconv.ParseFloat(cell, 64); err != nil {
				t.Errorf("%s is %q: a spreadsheet takes it for a formula", lines[0][i], cell)
			}
		}
	}
	if names < 50 {
		t.Errorf("only %d names were made text", names)
	}
	if plainCell("-0.5") != "-0.5" || plainCell("gpt-4o") != "gpt-4o" {
		t.Error("what is no formula was changed")
	}
}
