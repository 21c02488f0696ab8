// Package batch answers large files of requests offline, in the shape of OpenAI's /v1/files and /v1/batches: certified
// specialists answer their lines at once, the rest goes to the provider's own batch API at its lower price, and the results
// are joined by custom_id.
//
// A batch is a row of the store that says how far it has come; files hold the lines. Every step can be repeated: after a crash
// the files are cut back to what the row vouches for, and the ledger refuses to enter a line twice.
package batch

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"occam/internal/gateway"
	"occam/internal/openai"
	"occam/internal/store"
)

// Options of a Service. Store, Desk and Dir are required.
type Options struct {
	Store  *store.Store
	Desk   *gateway.Server // answers and prepares single lines
	Dir    string          // holds the files, readable by this account only
	Limits Limits
	Log    *slog.Logger     // default discards
	Now    func() time.Time // default time.Now
}

// Limits bound what a Service takes on. A zero field takes its default.
type Limits struct {
	FileBytes   int64         // of one upload; default 1 GiB
	StoredBytes int64         // of all files together; default 10 GiB
	Lines       int64         // of one batch; default 2,000,000
	Active      int           // batches that have not ended; default 64
	Retention   time.Duration // of files and of what is known of ended batches; default 30 days
	Poll        time.Duration // between two looks at a provider's batch; default 30 s
	PartLines   int64         // of one batch at a provider; default 50,000
	PartBytes   int64         // of one upload to a provider; default 150 MB
	Calls       bool          // a provider that takes no batch is asked line by line at its full price; else those lines fail
	CallsAtOnce int           // default 8

	chunk   int           // lines read, answered and made durable together; default 2048
	lease   time.Duration // how long a gateway that shares its database has a batch without a sign of life; default 20 s
	listLag time.Duration // how long a provider's list may lack a batch that was just made; default a minute
}

func (l *Limits) complete() {
	l.FileBytes = cmp.Or(l.FileBytes, 1<<30)
	l.StoredBytes = cmp.Or(l.StoredBytes, 10<<30)
	l.Lines = cmp.Or(l.Lines, 2_000_000)
	l.Active = cmp.Or(l.Active, 64)
	l.Retention = cmp.Or(l.Retention, 30*24*time.Hour)
	l.Poll = cmp.Or(l.Poll, 30*time.Second)
	l.PartLines = cmp.Or(l.PartLines, 50_000)
	l.PartBytes = cmp.Or(l.PartBytes, 150_000_000)
	l.CallsAtOnce = cmp.Or(l.CallsAtOnce, 8)
	l.lease = cmp.Or(l.lease, leaseTerm)
	l.listLag = cmp.Or(l.listLag, time.Minute)
	l.chunk = cmp.Or(l.chunk, 2048)
}

// Statuses of a batch, as the public API names them.
const (
	Validating = "validating"
	InProgress = "in_progress"
	Finalizing = "finalizing"
	Completed  = "completed"
	Failed     = "failed"
	Expired    = "expired"
	Cancelling = "cancelling"
	Cancelled  = "cancelled"
)

// A Batch is one file of requests on its way to its answers. It is stored as a record of the kind "batch".
type Batch struct {
	ID       string            `json:"id"`
	KeyID    string            `json:"key_id,omitempty"`
	Home     string            `json:"home"` // the data folder where it was made: it holds its files, unless the database does
	Endpoint string            `json:"endpoint"`
	Input    string            `json:"input"`
	Output   string            `json:"output"`
	Errors   string            `json:"errors"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Status   string            `json:"status"`
	Faults   []Fault           `json:"faults,omitempty"` // why it failed as a whole

	Created   time.Time `json:"created"`
	Started   time.Time `json:"started,omitzero"`
	Finishing time.Time `json:"finishing,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Cancel    time.Time `json:"cancel,omitzero"` // when somebody asked it to stop

	Counts      Counts  `json:"counts"`
	Usage       Usage   `json:"usage"`
	Lines       int64   `json:"lines"`        // read of the input
	Offset      int64   `json:"offset"`       // bytes of the input that they took
	Sorted      bool    `json:"sorted"`       // the input is read to its end
	OutputBytes int64   `json:"output_bytes"` // of the output file that are vouched for
	ErrorBytes  int64   `json:"error_bytes"`
	Parts       []*Part `json:"parts,omitempty"`

	version int64 // of the record
}

// Counts are how many requests of a batch stand where.
type Counts struct {
	Total      int64 `json:"total"`
	Completed  int64 `json:"completed"`
	Failed     int64 `json:"failed"`
	Specialist int64 `json:"specialist"` // answered in this process, a part of Completed
	Audits     int64 `json:"audits"`     // also put to the provider, to check a specialist
}

// Usage is what providers billed for a batch.
type Usage struct {
	Input     int64 `json:"input"`
	Cached    int64 `json:"cached"`
	Output    int64 `json:"output"`
	Reasoning int64 `json:"reasoning"`
}

// A Fault says what is wrong with a batch or a line.
type Fault struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
	Line    int64  `json:"line,omitempty"`
}

// States of a part.
const (
	filling  = "filling"  // lines are added
	sealed   = "sealed"   // complete
	intended = "intended" // every line's intent is in the ledger, the upload's file is written
	creating = "creating" // the provider was, or is about to be, asked to make its batch
	sent     = "sent"     // the provider's batch is known
	fetched  = "fetched"  // its results are here
	calling  = "calling"  // the lines are asked one by one
	settled  = "settled"  // every line has its outcome
)

// A Part is what one batch at a provider asks: lines of one model.
type Part struct {
	Number    int       `json:"number"`
	Provider  string    `json:"provider"`
	Model     string    `json:"model"`
	State     string    `json:"state"`
	Lines     int64     `json:"lines"`
	Bytes     int64     `json:"bytes"` // of its file that are vouched for
	Kept      bool      `json:"kept"`  // the file holds the lines that are sent, without those that a budget has no room for
	Upload    string    `json:"upload,omitempty"`
	Asked     time.Time `json:"asked,omitzero"`          // when the provider was last asked to make its batch
	Remote    string    `json:"remote,omitempty"`        // the provider's batch
	Status    string    `json:"remote_status,omitempty"` // of it
	Done      int64     `json:"remote_done,omitempty"`   // requests of it that have ended
	Output    string    `json:"remote_output,omitempty"`
	Errors    string    `json:"remote_errors,omitempty"`
	Settled   int64     `json:"settled"` // bytes of the results, or lines that were called, that are vouched for
	Tries     int       `json:"tries,omitempty"`
	Rejection string    `json:"rejection,omitempty"`
}

// A Service is the batch API with its runner. Make one with New.
type Service struct {
	opts  Options
	home  string
	owner string       // this process, in leases
	used  atomic.Int64 // bytes of all files
	life  context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup

	mu      sync.Mutex
	running map[string]*run
	sorting sync.Mutex // one batch is read at a time: it takes all cores
}

// Kinds of the store's records.
const (
	kindBatch  = "batch"
	kindFile   = "file"
	kindCancel = "batch_cancel"
)

// New opens the folder, and goes on with every batch that has not ended.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Desk == nil || o.Dir == "" {
		return nil, errors.New("batch: a Service needs a Store, a Desk and a Dir")
	}
	o.Limits.complete()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{opts: o, running: map[string]*run{}, owner: store.NewID(o.Now())}
	if err := s.openDir(); err != nil {
		return nil, err
	}
	s.life, s.stop = context.WithCancel(context.Background())
	if s.shared() {
		s.every(s.opts.Limits.lease/4, "the leases could not be looked after; another gateway takes over what is not renewed", s.tend)
	} else if err := s.resume(); err != nil {
		return nil, err
	}
	s.every(time.Hour, "expired files could not be deleted", s.sweep)
	return s, nil
}

// every does something at once and then at an interval, until the service ends; trouble is what the log says where that fails.
func (s *Service) every(interval time.Duration, trouble string, do func(context.Context) error) {
	s.wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			if err := do(s.life); err != nil && s.life.Err() == nil {
				s.opts.Log.Warn("batches: "+trouble, "error", err)
			}
			select {
			case <-s.life.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// resume goes on with every batch of this folder that has not ended.
func (s *Service) resume() error {
	all, err := List(s.life, s.opts.Store)
	for _, b := range all {
		if b.Home == s.home && !b.over() {
			s.begin(b)
		}
	}
	return err
}

// Close stops the work; what is not done goes on with the next New.
func (s *Service) Close() {
	s.stop()
	s.wg.Wait()
}

// homeName is the file with the folder's name.
const homeName = ".home"

// openDir makes the folder and its name, and counts what lies in it.
func (s *Service) openDir() error {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("batch: the folder for files: %w", err)
	}
	name := filepath.Join(s.opts.Dir, homeName)
	id, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		id = []byte(store.NewID(s.opts.Now()))
		err = os.WriteFile(name, id, 0o600)
	}
	if err != nil {
		return fmt.Errorf("batch: the folder for files: %w", err)
	}
	s.home = strings.TrimSpace(string(id))
	return s.tidy()
}

func (b *Batch) over() bool {
	return b.Status == Completed || b.Status == Failed || b.Status == Expired || b.Status == Cancelled
}

// List returns the batches of a store, newest first.
func List(ctx context.Context, s *store.Store) ([]*Batch, error) {
	var all []*Batch
	err := s.View(ctx, func(tx *store.Tx) error {
		records, err := tx.Records(kindBatch).List()
		for _, r := range records {
			b := &Batch{version: r.Version}
			if err := json.Unmarshal(r.Value, b); err != nil {
				return fmt.Errorf("batch: %s: %w", r.Name, err)
			}
			all = append(all, b)
		}
		return err
	})
	slices.Reverse(all) // names are ULIDs
	return all, err
}

// Get returns a batch; store.ErrNotFound when there is none.
func Get(ctx context.Context, s *store.Store, id string) (*Batch, error) {
	b := &Batch{}
	err := s.View(ctx, func(tx *store.Tx) error {
		r, err := tx.Records(kindBatch).Get(id)
		if err != nil {
			return err
		}
		b.version = r.Version
		return json.Unmarshal(r.Value, b)
	})
	if err != nil {
		return nil, fmt.Errorf("batch %s: %w", id, err)
	}
	return b, nil
}

// save writes how far a batch is.
func (s *Service) save(ctx context.Context, b *Batch) error {
	value, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("batch %s: %w", b.ID, err)
	}
	err = s.opts.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.Records(kindBatch).Put(store.Record{Name: b.ID, Version: b.version, Value: value})
	})
	if err == nil {
		b.version++
	}
	return err
}

// Create makes a batch of an uploaded file and begins it. The error is an *openai.Error where the caller is to blame.
func (s *Service) Create(ctx context.Context, keyID, input, endpoint, window string, metadata map[string]string) (*Batch, error) {
	f, err := s.file(ctx, input, keyID)
	if err != nil {
		return nil, err
	}
	switch {
	case f.Purpose != "batch":
		return nil, openai.BadRequest("input_file_id", "The file has the purpose '"+f.Purpose+"': upload one with the purpose 'batch'.")
	case !s.mine(f.Home):
		return nil, openai.BadRequest("input_file_id", "The file was uploaded to another gateway: make the batch there.")
	case apiOf(endpoint) == "":
		return nil, openai.BadRequest("endpoint", "The endpoint must be /v1/chat/completions, /v1/responses or /v1/embeddings.")
	case window != "24h":
		return nil, openai.BadRequest("completion_window", "The completion window must be 24h.")
	case len(metadata) > 16:
		return nil, openai.BadRequest("metadata", "At most 16 metadata pairs are kept.")
	}
	for k, v := range metadata {
		if len(k) > 64 || len(v) > 512 {
			return nil, openai.BadRequest("metadata", "Metadata keys have at most 64 bytes, values 512.")
		}
	}
	s.mu.Lock()
	active := len(s.running)
	s.mu.Unlock()
	if active >= s.opts.Limits.Active {
		return nil, &openai.Error{Status: 429, Type: "requests", Code: "batch_limit", Message: "Too many batches have not ended yet. Try again when one has."}
	}
	now := s.opts.Now().UTC()
	b := &Batch{ID: "batch_" + store.NewID(now), KeyID: keyID, Home: s.home, Endpoint: endpoint, Input: input, Metadata: metadata,
		Status: Validating, Created: now}
	b.Output, b.Errors = "file-"+store.NewID(now), "file-"+store.NewID(now)
	if err := s.save(ctx, b); err != nil {
		return nil, err
	}
	made := *b // what the runner changes is not the caller's
	if !s.shared() {
		s.begin(b)
	} else if err := s.takeOn(ctx, b.ID); err != nil {
		s.opts.Log.Warn("batch: it begins when a gateway reaches the database again", "batch", b.ID, "error", err)
	}
	return &made, nil
}

// Cancel asks a batch to stop: what is answered stays, what is not yet sent is not. It is durable when Cancel returns.
func (s *Service) Cancel(ctx context.Context, id string) error {
	b, err := Get(ctx, s.opts.Store, id)
	if err != nil {
		return err
	}
	if b.over() {
		return openai.BadRequest("", "The batch has ended with the status '"+b.Status+"'.")
	}
	if err := MarkCancelled(ctx, s.opts.Store, id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[id]; r != nil { // another gateway hears of it when it renews its lease
		r.cancelled.Store(true)
		r.poke()
	}
	return nil
}

// MarkCancelled writes that a batch is to stop, for whichever process runs it next.
func MarkCancelled(ctx context.Context, s *store.Store, id string) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		marks := tx.Records(kindCancel)
		if _, err := marks.Get(id); err == nil {
			return nil
		}
		return marks.Put(store.Record{Name: id, Value: json.RawMessage("true")})
	})
}

// apiOf is the shape of an endpoint's requests, "" where batches of it are not taken.
func apiOf(endpoint string) openai.API {
	switch endpoint {
	case "/v1/chat/completions":
		return openai.Chat
	case "/v1/responses":
		return openai.Responses
	case "/v1/embeddings":
		return openai.Embeddings
	}
	return ""
}
