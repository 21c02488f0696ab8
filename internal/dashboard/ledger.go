package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"occam/internal/finops"
	"occam/internal/store"
)

// checks remembers the last check of the ledger, and lets only one run at a time: it reads everything.
type checks struct {
	running sync.Mutex
	mu      sync.Mutex
	last    *verdict
}

// A verdict is what Verify found.
type verdict struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"`
	OK       bool      `json:"ok"`
	Entries  int64     `json:"entries"`
	Attempts int64     `json:"attempts"`
	Open     int64     `json:"open"`
	Remarks  []string  `json:"remarks,omitempty"`
	Problems []string  `json:"problems,omitempty"`
	Found    int64     `json:"problems_found"`
}

type ledger struct {
	Counts    store.Counts           `json:"counts"`
	Heads     []store.ChainHead      `json:"chain_heads"`
	Check     *verdict               `json:"last_check,omitempty"`
	MayCheck  bool                   `json:"-"` // there is a database to check, and the caller may
	MayWrite  bool                   `json:"-"`
	Providers []string               `json:"-"` // that have rows in the month
	Month     string                 `json:"-"`
	Invoice   *finops.Reconciliation `json:"invoice,omitempty"`
	Provider  string                 `json:"provider,omitempty"`
}

// ledger loads the page about how complete and how intact the ledger is.
func (d *Dashboard) ledger(r *http.Request) (any, error) {
	l, _, err := d.readLedger(r)
	return l, err
}

func (d *Dashboard) readLedger(r *http.Request) (*ledger, []finops.Row, error) {
	counts, err := d.Source.Counts(r.Context())
	if err != nil {
		return nil, nil, err
	}
	window, month, err := monthOf(r, d.Now().UTC())
	if err != nil {
		return nil, nil, err
	}
	rows, _, err := d.rows(r.Context(), window, store.ByDay)
	if err != nil {
		return nil, nil, err
	}
	l := &ledger{Counts: counts, MayCheck: d.Verifier != nil && who(r).role == Admin, MayWrite: who(r).role == Admin, Month: month.Format("2006-01")}
	for _, row := range rows {
		if row.Provider != "" && !slices.Contains(l.Providers, row.Provider) {
			l.Providers = append(l.Providers, row.Provider)
		}
	}
	if l.Heads, err = d.Source.Heads(r.Context()); err != nil {
		return nil, nil, err
	}
	l.Check, err = d.lastCheck(r.Context())
	return l, rows, err
}

// verify checks the whole ledger.
func (d *Dashboard) verify(w http.ResponseWriter, r *http.Request) {
	if d.Verifier == nil {
		d.fail(w, r, &failure{http.StatusNotImplemented, "The ledger cannot be checked here.", "The dashboard was not given the database.", "Run occam ledger verify."})
		return
	}
	if !d.checks.running.TryLock() {
		d.fail(w, r, &failure{http.StatusConflict, "A check is running already.", "It reads the whole ledger, so one is enough.", "Wait for its result."})
		return
	}
	defer d.checks.running.Unlock()
	report, err := d.Verifier(r.Context())
	if err != nil {
		d.fail(w, r, d.explain(r, err))
		return
	}
	c := &verdict{At: d.Now().UTC(), By: who(r).name, OK: report.OK(), Entries: report.Entries, Attempts: report.Attempts, Open: report.Open,
		Remarks: report.Remarks, Problems: report.Problems, Found: report.Found}
	d.keepCheck(r.Context(), c)
	d.did(r.Context(), who(r).name, "checked the ledger", "", map[bool]string{true: "intact", false: count(report.Found) + " problems"}[c.OK])
	if isAPI(r) {
		d.reply(w, r, http.StatusOK, c)
		return
	}
	http.Redirect(w, r, "/ledger", http.StatusSeeOther)
}

// checkKind is the kind of the document that holds the last check.
const checkKind = "ledger check"

// keepCheck remembers a check, over restarts where there is a database to keep it in.
func (d *Dashboard) keepCheck(ctx context.Context, c *verdict) {
	d.checks.mu.Lock()
	d.checks.last = c
	d.checks.mu.Unlock()
	if d.Database == nil {
		return
	}
	value, err := json.Marshal(c)
	if err == nil {
		err = d.Database.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			old, err := tx.Records(checkKind).Get("last")
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			return tx.Records(checkKind).Put(store.Record{Name: "last", Version: old.Version, Value: value})
		})
	}
	if err != nil {
		d.Log.Error("dashboard: the check of the ledger could not be kept", "error", err)
	}
}

func (d *Dashboard) lastCheck(ctx context.Context) (*verdict, error) {
	d.checks.mu.Lock()
	defer d.checks.mu.Unlock()
	if d.checks.last != nil || d.Database == nil {
		return d.checks.last, nil
	}
	var kept store.Record
	err := d.Database.View(ctx, func(tx *store.Tx) (err error) { kept, err = tx.Records(checkKind).Get("last"); return err })
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	var last verdict
	if json.Unmarshal(kept.Value, &last) == nil {
		d.checks.last = &last
	}
	return d.checks.last, nil
}

// maxInvoice bounds an uploaded invoice.
const maxInvoice = 16 << 20

// reconcile compares an uploaded invoice with the ledger. Nothing of it is kept.
func (d *Dashboard) reconcile(w http.ResponseWriter, r *http.Request) {
	l, err := d.compare(r)
	switch {
	case err != nil:
		d.fail(w, r, d.explain(r, err))
	case isAPI(r):
		d.did(r.Context(), who(r).name, "compared an invoice", l.Provider, l.Month)
		d.reply(w, r, http.StatusOK, l.Invoice)
	default:
		d.did(r.Context(), who(r).name, "compared an invoice", l.Provider, l.Month)
		d.render(w, r, "ledger", http.StatusOK, l)
	}
}

func (d *Dashboard) compare(r *http.Request) (*ledger, error) {
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		return nil, badUpload(err)
	}
	defer r.MultipartForm.RemoveAll() //nolint:errcheck // temporary files
	l, rows, err := d.readLedger(r)
	if err != nil {
		return nil, err
	}
	file, _, err := r.FormFile("invoice")
	if err != nil {
		return nil, badInput("There is no invoice in the form.", "Choose the CSV file that the provider gave you.")
	}
	defer file.Close()
	lines, err := finops.ReadInvoice(io.LimitReader(file, maxInvoice))
	if err != nil {
		return nil, badInput("The invoice cannot be read: "+strings.TrimPrefix(err.Error(), "invoice: ")+".", "Export it as CSV with a header.")
	}
	l.Provider = r.FormValue("provider")
	if !slices.Contains(l.Providers, l.Provider) {
		return nil, badInput("The ledger of "+l.Month+" has no provider "+quote(short(l.Provider))+".", "Choose the provider and the month of the invoice.")
	}
	theirs := slices.DeleteFunc(rows, func(row finops.Row) bool { return row.Provider != l.Provider })
	result := finops.Reconcile(lines, theirs)
	l.Invoice = &result
	return l, nil
}

func badUpload(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &failure{http.StatusRequestEntityTooLarge, "The file is too large.", "At most 16 MiB are read.", "Use occam report --invoice for larger ones."}
	}
	return badInput("The upload cannot be read.", "Send the form with a file.")
}
