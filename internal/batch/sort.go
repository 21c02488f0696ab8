package batch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"occam/internal/gateway"
	"occam/internal/openai"
	"occam/internal/store"
)

const (
	chunkBytes  = 32 << 20 // of a chunk of lines
	maxLine     = 32 << 20 // a longer line is an error of its own
	maxCustomID = 512      // bytes
	progressGap = time.Minute
)

// A lineIn is one line of the input.
type lineIn struct {
	number   int64
	text     []byte // without its end
	tooLong  bool
	customID string
	body     []byte
	id       [10]byte // what the request's ID is made of
	request  string   // its ID
	fault    *Fault
	gateway.Sorted
}

// A stored line is one that waits in a part's file.
type stored struct {
	CustomID string          `json:"custom_id"`
	Request  string          `json:"request"`
	Line     int64           `json:"line"`
	Began    time.Time       `json:"began"`
	Body     json.RawMessage `json:"body"` // as the app wrote it
	Sent     json.RawMessage `json:"sent"` // as the upstream is asked
	Audited  string          `json:"audited,omitempty"`
	Intent   store.Attempt   `json:"intent"`

	end int64 // where the next one begins
}

// A reader cuts a file into lines.
type reader struct {
	in     *bufio.Reader
	offset int64 // bytes consumed
	ended  bool  // the line that was read last has an end
}

// next returns a line without its end, empty ones too; io.EOF after the last one.
func (r *reader) next() (text []byte, tooLong bool, err error) {
	for {
		piece, err := r.in.ReadSlice('\n')
		r.offset += int64(len(piece))
		if len(text)+len(piece) > maxLine {
			tooLong = true
		} else if !tooLong {
			text = append(text, piece...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(text) == 0 && !tooLong:
			return nil, false, io.EOF
		case err != nil && err != io.EOF:
			return nil, false, err
		}
		r.ended = err == nil
		return bytes.TrimSpace(text), tooLong, nil
	}
}

var mark = []byte("\xef\xbb\xbf") // a byte order mark

// sort reads the input to its end: a chunk of lines at a time, each checked, answered where a specialist may, and else added
// to a part.
func (r *run) sort(ctx context.Context) error {
	r.sorting.Lock()
	defer r.sorting.Unlock()
	if r.b.Status == Validating {
		r.b.Status, r.b.Started = InProgress, r.opts.Now().UTC()
		r.opts.Log.Info("batch: begun", "batch", r.b.ID, "endpoint", r.b.Endpoint, "input", r.b.Input)
	}
	f, err := r.openInput(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	in := &reader{in: bufio.NewReaderSize(f, 256<<10)}
	seen, err := r.seen(in)
	if err != nil {
		return err
	}
	if err := r.sortChunks(ctx, in, seen); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.b.Counts.Total == 0 && !r.stopping() {
		return &Fault{Code: "empty_file", Message: "The input file has no requests."}
	}
	return r.seal(ctx)
}

// sortChunks answers a chunk of lines while the one before it is made durable. What a cancelled batch has not read yet is read
// all the same: each line is told.
func (r *run) sortChunks(ctx context.Context, in *reader, seen map[[10]byte]struct{}) error {
	lines, told := r.b.Lines, time.Now()
	written := make(chan error, 1)
	written <- nil // nothing is being written
	for end := false; !end && ctx.Err() == nil; {
		var chunk []lineIn
		var err error
		if chunk, end, err = r.readChunk(in, lines); err == nil {
			err = r.answer(ctx, chunk, seen)
		}
		if err = errors.Join(<-written, err); err != nil {
			return err
		}
		lines += int64(len(chunk))
		if time.Since(told) > progressGap {
			told = time.Now()
			r.opts.Log.Info("batch: reading", "batch", r.b.ID, "lines", lines, "specialist", r.b.Counts.Specialist)
		}
		offset := in.offset
		go func() { written <- r.write(ctx, chunk, offset, end) }()
	}
	return <-written
}

// seal ends the sorting: no line is added to any part any more.
func (r *run) seal(ctx context.Context) error {
	r.b.Sorted = true
	for _, p := range r.b.Parts {
		if p.State == filling {
			p.State = sealed
		}
	}
	c := r.b.Counts
	r.opts.Log.Info("batch: read", "batch", r.b.ID, "requests", c.Total, "specialist", c.Specialist, "failed", c.Failed, "audits", c.Audits,
		"parts", len(r.b.Parts))
	return r.checkpoint(ctx)
}

// seen goes to where the batch stands in the input, and collects the custom IDs on the way.
func (r *run) seen(in *reader) (map[[10]byte]struct{}, error) {
	seen := map[[10]byte]struct{}{}
	if lead, err := in.in.Peek(len(mark)); err == nil && bytes.Equal(lead, mark) {
		n, _ := in.in.Discard(len(mark))
		in.offset = int64(n)
	}
	for in.offset < r.b.Offset {
		text, tooLong, err := in.next()
		if err != nil {
			return nil, fmt.Errorf("batch: the input is shorter than it was: %w", err)
		}
		if l := (lineIn{text: text, tooLong: tooLong}); len(text) > 0 {
			if r.b.parse(&l); l.customID != "" {
				seen[l.id] = struct{}{}
			}
		}
	}
	return seen, nil
}

// readChunk reads the next lines, numbered from the one after number. end says that they are the last.
func (r *run) readChunk(in *reader, number int64) (chunk []lineIn, end bool, err error) {
	for size := 0; len(chunk) < r.opts.Limits.chunk && size < chunkBytes; {
		text, tooLong, err := in.next()
		if err == io.EOF {
			return chunk, true, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("batch: read the input: %w", err)
		}
		number++
		size += len(text)
		chunk = append(chunk, lineIn{number: number, text: text, tooLong: tooLong})
	}
	return chunk, false, nil
}

// parse checks the frame of a line.
func (b *Batch) parse(l *lineIn) {
	bad := func(code, message string) { l.fault = &Fault{Code: code, Message: message, Line: l.number} }
	if l.tooLong {
		bad("line_too_long", fmt.Sprintf("The line is longer than %d bytes.", maxLine))
		return
	}
	var in struct {
		CustomID *string         `json:"custom_id"`
		Method   string          `json:"method"`
		URL      string          `json:"url"`
		Body     json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(l.text, &in); err != nil {
		bad("invalid_json_line", "The line is no JSON object with custom_id, method, url and body: "+err.Error()+".")
		return
	}
	if in.CustomID == nil || *in.CustomID == "" || len(*in.CustomID) > maxCustomID {
		bad("invalid_custom_id", fmt.Sprintf("The line needs a custom_id of 1 to %d bytes.", maxCustomID))
		return
	}
	l.customID, l.body = *in.CustomID, in.Body
	sum := sha256.Sum256([]byte(b.ID + "\x00" + l.customID))
	copy(l.id[:], sum[:])
	l.request = store.NewIDOf(b.Created, l.id)
	switch {
	case in.Method != "POST":
		bad("invalid_method", "The method must be POST.")
	case in.URL != b.Endpoint:
		bad("invalid_url", "The url must be the batch's endpoint, "+b.Endpoint+".")
	case len(in.Body) == 0 || in.Body[0] != '{':
		bad("invalid_body", "The body must be an object.")
	}
}

const (
	keyRevoked    = "invalid_api_key"
	keyWasRevoked = "The API key that made the batch was revoked."
)

// key is the key that made the batch, nil where the API asked for none. One that was revoked pays for nothing more.
func (r *run) key() (key *store.Key, revoked bool) {
	key = r.opts.Desk.KeyOf(r.b.KeyID)
	return key, key == nil && r.b.KeyID != ""
}

// answer finds out what becomes of each line of a chunk, on all cores.
func (r *run) answer(ctx context.Context, chunk []lineIn, seen map[[10]byte]struct{}) error {
	share := func(work func(*lineIn)) {
		var wg sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for w := range workers {
			wg.Go(func() {
				for i := w; i < len(chunk); i += workers {
					work(&chunk[i])
				}
			})
		}
		wg.Wait()
	}
	share(func(l *lineIn) {
		if len(l.text) > 0 || l.tooLong {
			r.b.parse(l)
		}
	})
	for i := range chunk {
		l := &chunk[i]
		if l.customID == "" {
			continue
		}
		if _, again := seen[l.id]; again {
			l.fault = &Fault{Code: "duplicate_custom_id", Message: "An earlier line has the same custom_id.", Line: l.number}
			l.request = ""
		}
		seen[l.id] = struct{}{}
	}
	if r.stopping() {
		for i := range chunk {
			if l := &chunk[i]; l.fault == nil && len(l.text) > 0 {
				l.fault = &Fault{Code: "batch_cancelled", Message: cancelledBefore, Line: l.number}
			}
		}
		return nil
	}
	key, revoked := r.key()
	api, began := apiOf(r.b.Endpoint), r.opts.Now()
	share(func(l *lineIn) {
		switch {
		case l.fault != nil || len(l.text) == 0:
		case revoked:
			l.Refused = &openai.Error{Status: 401, Code: keyRevoked, Message: keyWasRevoked}
		default:
			l.Sorted = r.opts.Desk.Sort(ctx, &gateway.Line{ID: l.request, Began: began, Key: key, API: api, Body: l.body})
		}
	})
	for i := range chunk {
		if e := chunk[i].Refused; e != nil && e.Status == http.StatusServiceUnavailable {
			return e // the gateway is starting
		}
	}
	return nil
}

// write makes a chunk durable: the files first, then the ledger, then the batch's row, which vouches for both.
func (r *run) write(ctx context.Context, chunk []lineIn, offset int64, end bool) error {
	var output, failed []byte
	var rows []store.Attempt
	parts := map[int][]byte{}
	counts, began := r.b.Counts, r.opts.Now().UTC()
	for i := range chunk {
		l := &chunk[i]
		if len(l.text) == 0 && !l.tooLong {
			continue
		}
		if counts.Total++; counts.Total > r.opts.Limits.Lines {
			return &Fault{Code: "too_many_lines", Message: fmt.Sprintf("The input file has more than %d requests.", r.opts.Limits.Lines), Line: l.number}
		}
		rows = append(rows, l.Rows...)
		switch {
		case l.fault != nil || l.Refused != nil:
			counts.Failed++
			failed = appendFault(failed, l)
		case l.Answer != nil:
			counts.Completed++
			counts.Specialist++
			output = appendResult(output, &result{ID: resultPrefix + l.request, CustomID: l.customID,
				Response: &response{Status: 200, RequestID: l.request, Body: l.Answer, Occam: by(&l.Row)}})
		}
		if l.Ask != nil {
			if l.Ask.Audited != "" {
				counts.Audits++
			}
			if err := r.putAside(parts, l, began); err != nil {
				return err
			}
		}
	}
	if err := r.append(ctx, output, failed, parts); err != nil {
		return err
	}
	if err := r.opts.Store.RecordLines(ctx, rows); err != nil {
		return err
	}
	r.b.Counts, r.b.Offset, r.b.Lines = counts, offset, r.b.Lines+int64(len(chunk))
	if end {
		return nil // seal writes the row
	}
	return r.checkpoint(ctx)
}

func appendFault(dst []byte, l *lineIn) []byte {
	out := &result{ID: resultPrefix + l.request, CustomID: l.customID}
	if l.request == "" {
		out.ID = resultPrefix + "line_" + strconv.FormatInt(l.number, 10)
	}
	if l.fault != nil {
		out.Error = &problem{Code: l.fault.Code, Message: l.fault.Message, Line: l.number}
	} else {
		out.Response = &response{Status: l.Refused.Status, RequestID: l.request, Body: l.Refused.Append(nil, openai.Chat)}
	}
	return appendResult(dst, out)
}

// putAside adds a line to the part that takes its model.
func (r *run) putAside(parts map[int][]byte, l *lineIn, began time.Time) error {
	text, err := json.Marshal(stored{CustomID: l.customID, Request: l.request, Line: l.number, Began: began, Body: l.body, Sent: l.Ask.Body,
		Audited: l.Ask.Audited, Intent: l.Ask.Intent})
	if err != nil {
		return fmt.Errorf("batch: line %d: %w", l.number, err)
	}
	p := r.part(l.Ask.Upstream.Name, l.Ask.Model, int64(len(text)))
	p.Lines++
	p.Bytes += int64(len(text)) + 1
	parts[p.Number] = append(append(parts[p.Number], text...), '\n')
	return nil
}

// part finds the part that is being filled for a model, or begins one.
func (r *run) part(provider, model string, size int64) *Part {
	for _, p := range r.b.Parts {
		if p.State != filling || p.Provider != provider || p.Model != model {
			continue
		}
		if p.Lines < r.opts.Limits.PartLines && p.Bytes+size < r.opts.Limits.PartBytes {
			return p
		}
		p.State = sealed
	}
	p := &Part{Number: len(r.b.Parts), Provider: provider, Model: model, State: filling}
	r.b.Parts = append(r.b.Parts, p)
	return p
}

// append writes what a chunk adds to the files.
func (r *run) append(ctx context.Context, output, failed []byte, parts map[int][]byte) error {
	err := errors.Join(r.add(ctx, r.output, output), r.add(ctx, r.errs, failed))
	for number, text := range parts {
		g := r.raw[number]
		if g == nil && err == nil {
			if g, err = r.grow(ctx, r.linesFile(r.b.Parts[number]), r.b.Parts[number].Bytes-int64(len(text))); err == nil {
				r.raw[number] = g
			}
		}
		if err == nil {
			err = r.add(ctx, g, text)
		}
	}
	return err
}
