package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	batchLinesMax = 50_000
	batchBytesMax = 200 << 20
	batchFilesMax = 4096 // files stay in memory
)

// A BatchPlan is what the provider does with one batch. The zero value runs it at once.
type BatchPlan struct {
	Refuse    int           // status with which its creation is refused
	Fail      string        // code with which it fails after it was taken; nothing is run. At Anthropic every request fails by itself
	LoseReply bool          // it is made, but the connection is cut before the reply
	Delay     time.Duration // before the first line is run
	Expire    int           // it expires after so many lines; 0: it does not
	Drop      int           // every so many lines one is run and billed, but has no result
}

// batches are the files and batches of a provider.
type batches struct {
	mu      sync.Mutex
	files   map[string]*storedFile
	list    []*simBatch // in order of creation
	numbers int
	asked   int // requests to make a batch
}

type storedFile struct {
	id, name, purpose string
	created           int64
	content           []byte
}

type simBatch struct {
	id, endpoint, input, status string
	metadata                    json.RawMessage
	created                     int64
	output, errors              string
	total, completed, failed    int
	code, message               string // of a failure
	plan                        BatchPlan
	cancel                      bool
}

func (p *Provider) batchRoutes() {
	p.mux.HandleFunc("POST /v1/files", p.offline(p.upload))
	p.mux.HandleFunc("GET /v1/files/{id}/content", p.offline(p.fileContent))
	p.mux.HandleFunc("DELETE /v1/files/{id}", p.offline(p.deleteFile))
	p.mux.HandleFunc("POST /v1/batches", p.offline(p.createBatch))
	p.mux.HandleFunc("GET /v1/batches", p.offline(p.listBatches))
	p.mux.HandleFunc("GET /v1/batches/{id}", p.offline(p.getBatch))
	p.mux.HandleFunc("POST /v1/batches/{id}/cancel", p.offline(p.cancelBatch))
	p.messageBatchRoutes()
}

// offline wraps a route that costs nothing: the key is checked.
func (p *Provider) offline(next func(http.ResponseWriter, *http.Request) *apiError) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var err *apiError
		switch key := p.options.APIKey; {
		case key != "" && r.Header.Get("Authorization") != "Bearer "+key && r.Header.Get("X-Api-Key") != key:
			err = &apiError{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key", message: "Incorrect API key provided."}
		case p.options.NoBatches:
			err = &apiError{status: http.StatusNotFound, kind: "invalid_request_error", message: fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path)}
		default:
			err = next(w, r)
		}
		if err != nil {
			writeError(w, err)
		}
	}
}

func notThere(what, id string) *apiError {
	return &apiError{status: http.StatusNotFound, kind: "invalid_request_error", message: "No such " + what + ": " + id}
}

func (b *batches) add(f *storedFile) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.numbers++
	f.id, f.created = fmt.Sprintf("file-sim%06d", b.numbers), time.Now().Unix()
	if b.files == nil {
		b.files = map[string]*storedFile{}
	}
	b.files[f.id] = f
	return f.id
}

func (b *batches) file(id string) *storedFile {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files[id]
}

func (p *Provider) upload(w http.ResponseWriter, r *http.Request) *apiError {
	r.Body = http.MaxBytesReader(w, r.Body, batchBytesMax+1<<20)
	form, err := r.MultipartReader()
	if err != nil {
		return badRequest("", "Expected a multipart form.")
	}
	f, purpose := &storedFile{}, ""
	for {
		part, err := form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return badRequest("", "The form could not be read.")
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return badRequest("", "The form could not be read.")
		}
		if part.FormName() == "file" {
			f.name, f.content = part.FileName(), content
		} else if part.FormName() == "purpose" {
			purpose = string(content)
		}
	}
	p.batches.mu.Lock()
	full := len(p.batches.files) >= batchFilesMax
	p.batches.mu.Unlock()
	if purpose != "batch" || len(f.content) == 0 || len(f.content) > batchBytesMax || full {
		return badRequest("file", "A file with the purpose 'batch' of 1 byte to 200 MB is needed.")
	}
	f.purpose = purpose
	p.batches.add(f)
	writeJSON(w, http.StatusOK, encode(object{{"id", f.id}, {"object", "file"}, {"bytes", len(f.content)}, {"created_at", f.created},
		{"filename", f.name}, {"purpose", f.purpose}, {"status", "processed"}}))
	return nil
}

func (p *Provider) fileContent(w http.ResponseWriter, r *http.Request) *apiError {
	f := p.batches.file(r.PathValue("id"))
	if f == nil {
		return notThere("File object", r.PathValue("id"))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(f.content) // a client that has gone needs no answer
	return nil
}

func (p *Provider) deleteFile(w http.ResponseWriter, r *http.Request) *apiError {
	id := r.PathValue("id")
	p.batches.mu.Lock()
	delete(p.batches.files, id)
	p.batches.mu.Unlock()
	writeJSON(w, http.StatusOK, encode(object{{"id", id}, {"object", "file"}, {"deleted", true}}))
	return nil
}

func (p *Provider) createBatch(w http.ResponseWriter, r *http.Request) *apiError {
	var in struct {
		Input    string          `json:"input_file_id"`
		Endpoint string          `json:"endpoint"`
		Window   string          `json:"completion_window"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
		return badRequest("", "We could not parse the JSON body of your request.")
	}
	f := p.batches.file(in.Input)
	if f == nil {
		return notThere("File object", in.Input)
	}
	if in.Window != "24h" || batchDialect(in.Endpoint) == nil || in.Endpoint == messagesDialect.route {
		return badRequest("endpoint", "The endpoint or the completion window is not supported.")
	}
	return p.makeBatch(w, &simBatch{endpoint: in.Endpoint, input: in.Input, metadata: in.Metadata},
		func() ([]batchLine, string) { return readBatch(f.content, in.Endpoint) })
}

// makeBatch takes a batch on, as its plan says, and answers. lines are its requests, or what is wrong with them.
func (p *Provider) makeBatch(w http.ResponseWriter, b *simBatch, lines func() ([]batchLine, string)) *apiError {
	p.batches.mu.Lock()
	number := len(p.batches.list)
	b.id, b.status, b.created = fmt.Sprintf("batch_sim%06d", number), "in_progress", time.Now().Unix()
	if p.options.Batches != nil {
		b.plan = p.options.Batches(p.batches.asked)
	}
	p.batches.asked++
	if b.plan.Refuse != 0 {
		p.batches.mu.Unlock()
		return &apiError{status: b.plan.Refuse, kind: "invalid_request_error", code: "batch_refused", message: "The simulated provider refuses this batch."}
	}
	p.batches.list = append(p.batches.list, b)
	reply := encode(b.object())
	p.batches.mu.Unlock()
	go p.runBatch(b, lines, number)
	if b.plan.LoseReply {
		panic(http.ErrAbortHandler)
	}
	writeJSON(w, http.StatusOK, reply)
	return nil
}

func batchDialect(endpoint string) *dialect {
	switch endpoint {
	case "/v1/chat/completions":
		return &chatDialect
	case "/v1/responses":
		return &responsesDialect
	case "/v1/embeddings":
		return &chatDialect // for its errors
	case messagesDialect.route:
		return &messagesDialect
	}
	return nil
}

func (b *simBatch) object() object {
	if b.messages() {
		return b.messageObject()
	}
	var faults any
	if b.code != "" {
		faults = object{{"object", "list"}, {"data", []object{{{"code", b.code}, {"message", b.message}, {"line", nil}, {"param", nil}}}}}
	}
	orNil := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return object{{"id", b.id}, {"object", "batch"}, {"endpoint", b.endpoint}, {"errors", faults}, {"input_file_id", b.input},
		{"completion_window", "24h"}, {"status", b.status}, {"output_file_id", orNil(b.output)}, {"error_file_id", orNil(b.errors)},
		{"created_at", b.created}, {"request_counts", object{{"total", b.total}, {"completed", b.completed}, {"failed", b.failed}}},
		{"metadata", b.metadata}}
}

func (p *Provider) listBatches(w http.ResponseWriter, r *http.Request) *apiError {
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	newest := p.batches.newest(false)
	if after := r.URL.Query().Get("after"); after != "" {
		at := slices.IndexFunc(newest, func(b *simBatch) bool { return b.id == after })
		newest = newest[at+1:]
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > 100 {
		limit = 20
	}
	data := []object{}
	for _, b := range newest[:min(limit, len(newest))] {
		data = append(data, b.object())
	}
	writeJSON(w, http.StatusOK, encode(object{{"object", "list"}, {"data", data}, {"has_more", len(newest) > limit}}))
	return nil
}

// newest are the batches of one API, the newest first.
func (b *batches) newest(messages bool) (all []*simBatch) {
	for _, one := range slices.Backward(b.list) {
		if one.messages() == messages {
			all = append(all, one)
		}
	}
	return all
}

// batch finds a batch and hands it over, locked.
func (p *Provider) batch(w http.ResponseWriter, r *http.Request, change func(*simBatch)) *apiError {
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	for _, b := range p.batches.list {
		if b.id == r.PathValue("id") {
			change(b)
			writeJSON(w, http.StatusOK, encode(b.object()))
			return nil
		}
	}
	return notThere("batch", r.PathValue("id"))
}

func (p *Provider) getBatch(w http.ResponseWriter, r *http.Request) *apiError {
	return p.batch(w, r, func(*simBatch) {})
}

func (p *Provider) cancelBatch(w http.ResponseWriter, r *http.Request) *apiError {
	return p.batch(w, r, func(b *simBatch) {
		if b.status == "in_progress" {
			b.cancel, b.status = true, "cancelling"
		}
	})
}

// BatchMarks returns the metadata of every batch that was made, in order: who makes one twice is found out.
func (p *Provider) BatchMarks() []map[string]string {
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	marks := make([]map[string]string, len(p.batches.list))
	for i, b := range p.batches.list {
		_ = json.Unmarshal(b.metadata, &marks[i]) // what is no object has no mark; Anthropic keeps none
	}
	return marks
}

// A batchLine is one line of an uploaded file.
type batchLine struct {
	CustomID string          `json:"custom_id"`
	Method   string          `json:"method"`
	URL      string          `json:"url"`
	Body     json.RawMessage `json:"body"`
}

// runBatch answers the lines of a batch, at half price, and gives the results in an order of its own.
func (p *Provider) runBatch(b *simBatch, read func() ([]batchLine, string), number int) {
	lines, problem := read()
	p.batches.mu.Lock()
	b.total = len(lines)
	p.batches.mu.Unlock()
	select {
	case <-time.After(b.plan.Delay):
	case <-p.quit:
		return
	}
	if b.plan.Fail != "" && !b.messages() {
		problem = "the simulated provider fails this batch"
	}
	if problem != "" {
		p.batches.mu.Lock()
		defer p.batches.mu.Unlock()
		b.status, b.code, b.message = "failed", b.plan.Fail, problem
		if b.code == "" {
			b.code = "invalid_file"
		}
		return
	}
	var output, failed [][]byte
	end := "completed"
	for i, line := range lines {
		if b.plan.Expire > 0 && i >= b.plan.Expire {
			end = "expired"
			failed = append(failed, b.undone(&line, "expired"))
			continue
		}
		p.batches.mu.Lock()
		stop := b.cancel
		p.batches.mu.Unlock()
		if stop {
			if end = "cancelled"; !b.messages() {
				break // the results do not name what was not run
			}
			failed = append(failed, b.undone(&line, "canceled"))
			continue
		}
		text, ok := p.runLine(b, &line, number, i)
		p.batches.mu.Lock()
		if ok {
			b.completed++
		} else {
			b.failed++
		}
		p.batches.mu.Unlock()
		switch {
		case b.plan.Drop > 0 && i%b.plan.Drop == b.plan.Drop-1:
		case ok:
			output = append(output, text)
		default:
			failed = append(failed, text)
		}
	}
	p.endBatch(b, end, output, failed, number)
}

func (p *Provider) endBatch(b *simBatch, end string, output, failed [][]byte, number int) {
	dice := rand.New(rand.NewPCG(p.options.Seed, uint64(number)))
	dice.Shuffle(len(output), func(i, j int) { output[i], output[j] = output[j], output[i] })
	keep := func(lines [][]byte) string {
		if len(lines) == 0 {
			return ""
		}
		return p.batches.add(&storedFile{name: b.id + ".jsonl", purpose: "batch_output", content: append(bytes.Join(lines, []byte("\n")), '\n')})
	}
	if b.messages() {
		output, failed = append(output, failed...), nil
	}
	out, bad := keep(output), keep(failed)
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	b.output, b.errors, b.status = out, bad, end
}

// readBatch reads the lines of a file as strictly as the real API does, or says what is wrong with it.
func readBatch(content []byte, endpoint string) (lines []batchLine, problem string) {
	seen, model := map[string]bool{}, ""
	for text := range bytes.Lines(content) {
		var line batchLine
		var body struct{ Model string }
		if json.Unmarshal(text, &line) != nil || json.Unmarshal(line.Body, &body) != nil || line.Method != "POST" || line.URL != endpoint {
			return nil, fmt.Sprintf("line %d is no request to %s", len(lines)+1, endpoint)
		}
		switch {
		case line.CustomID == "" || seen[line.CustomID]:
			return nil, fmt.Sprintf("the custom_id %q of line %d is used twice", line.CustomID, len(lines)+1)
		case model != "" && body.Model != model:
			return nil, "a batch has requests to one model only"
		case len(lines) >= batchLinesMax:
			return nil, "a batch has at most 50,000 requests"
		}
		seen[line.CustomID], model = true, body.Model
		lines = append(lines, line)
	}
	return lines, ""
}

// undone is the result of a line that was not run: expired or canceled.
func (b *simBatch) undone(line *batchLine, why string) []byte {
	if b.messages() {
		return encode(object{{"custom_id", line.CustomID}, {"result", object{{"type", why}}}})
	}
	return encode(object{{"id", "batch_req_" + line.CustomID}, {"custom_id", line.CustomID}, {"response", nil},
		{"error", object{{"code", "batch_" + why}, {"message", "This request could not be executed before the completion window expired."}}}})
}

// half are the prices of a batch.
func (r Rates) half() Rates {
	return Rates{Input: r.Input / 2, Cached: r.Cached / 2, Output: r.Output / 2}
}

// runLine answers and bills one line.
func (p *Provider) runLine(b *simBatch, line *batchLine, number, i int) (text []byte, ok bool) {
	d := batchDialect(b.endpoint)
	call := &call{id: fmt.Sprintf("req_sim_batch_%06d_%06d", number, i), body: line.Body, dialect: d, seed: hash(p.options.Seed, line.Body), start: time.Now()}
	result := func(status int, body []byte) []byte {
		if b.messages() {
			return messageResult(line, status, body)
		}
		return encode(object{{"id", "batch_" + call.id}, {"custom_id", line.CustomID},
			{"response", object{{"status_code", status}, {"request_id", call.id}, {"body", json.RawMessage(body)}}}, {"error", nil}})
	}
	if b.plan.Fail != "" { // else the batch would have failed as a whole
		err := serverError("the simulated provider fails this request")
		return result(err.status, d.failure(err)), false
	}
	if b.endpoint == "/v1/embeddings" {
		reply, err := p.embed(line.Body)
		if err != nil {
			return result(err.status, d.failure(err)), false
		}
		p.bill.open(reply.rates.half(), Charge{RequestID: call.id, ClientID: line.CustomID, At: call.start, Route: "/v1/batches", Model: reply.model,
			Prompt: reply.tokens})
		return result(http.StatusOK, reply.body), true
	}
	request, err := d.parse(line.Body)
	var rates Rates
	if err == nil {
		rates, err = p.check(request)
	}
	if err != nil {
		return result(err.status, d.failure(err)), false
	}
	answer := p.compose(call, request)
	p.bill.open(rates.half(), Charge{RequestID: call.id, ClientID: line.CustomID, ReplyID: answer.id, At: call.start, Route: "/v1/batches",
		Model: strings.TrimSpace(answer.model), Prompt: answer.prompt, Cached: answer.cached, Completion: answer.completion()})
	return result(http.StatusOK, encode(d.whole(answer))), true
}
