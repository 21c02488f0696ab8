package sim

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// The batches of Anthropic's API: one document with all requests makes one, and its results are one file.

const messageBatchLinesMax = 100_000

func (p *Provider) messageBatchRoutes() {
	const route = "/v1/messages/batches"
	p.mux.HandleFunc("POST "+route, p.offline(p.createMessageBatch))
	p.mux.HandleFunc("GET "+route, p.offline(p.listMessageBatches))
	p.mux.HandleFunc("GET "+route+"/{id}", p.offline(p.getBatch))
	p.mux.HandleFunc("POST "+route+"/{id}/cancel", p.offline(p.cancelBatch))
	p.mux.HandleFunc("GET "+route+"/{id}/results", p.offline(p.messageResults))
	p.mux.HandleFunc("DELETE "+route+"/{id}", p.offline(p.deleteMessageBatch))
}

func (b *simBatch) messages() bool { return b.endpoint == messagesDialect.route }

var customIDs = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

func (p *Provider) createMessageBatch(w http.ResponseWriter, r *http.Request) *apiError {
	var in struct {
		Requests []struct {
			CustomID string          `json:"custom_id"`
			Params   json.RawMessage `json:"params"`
		} `json:"requests"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, batchBytesMax)).Decode(&in); err != nil {
		return badRequest("", "The JSON body of the request could not be parsed.")
	}
	if n := len(in.Requests); n == 0 || n > messageBatchLinesMax {
		return badRequest("requests", "requests: 1 to 100,000 are needed")
	}
	lines, seen := make([]batchLine, len(in.Requests)), map[string]bool{}
	for i, one := range in.Requests {
		if !customIDs.MatchString(one.CustomID) || seen[one.CustomID] {
			return badRequest("requests", "requests."+strconv.Itoa(i)+".custom_id: malformed, or used twice")
		}
		seen[one.CustomID] = true
		lines[i] = batchLine{CustomID: one.CustomID, Body: one.Params}
	}
	return p.makeBatch(w, &simBatch{endpoint: messagesDialect.route, total: len(lines)}, func() ([]batchLine, string) { return lines, "" })
}

// messageObject is the batch as Anthropic shows it: its counts stand still until it has ended.
func (b *simBatch) messageObject() object {
	counts := object{{"processing", b.total}, {"succeeded", 0}, {"errored", 0}, {"canceled", 0}, {"expired", 0}}
	status, results, ended := b.status, any(nil), any(nil)
	moment := time.Unix(b.created, 0).UTC()
	switch status {
	case "completed", "expired", "cancelled":
		left := b.total - b.completed - b.failed
		counts = object{{"processing", 0}, {"succeeded", b.completed}, {"errored", b.failed}, {"canceled", 0}, {"expired", left}}
		if status == "cancelled" {
			counts.set("canceled", left)
			counts.set("expired", 0)
		}
		status, results, ended = "ended", "https://api.anthropic.com/v1/messages/batches/"+b.id+"/results", moment.Add(time.Minute).Format(time.RFC3339)
	case "cancelling":
		status = "canceling"
	}
	return object{{"id", b.id}, {"type", "message_batch"}, {"processing_status", status}, {"request_counts", counts}, {"ended_at", ended},
		{"created_at", moment.Format(time.RFC3339)}, {"expires_at", moment.Add(24 * time.Hour).Format(time.RFC3339)}, {"archived_at", nil},
		{"cancel_initiated_at", nil}, {"results_url", results}}
}

func (p *Provider) listMessageBatches(w http.ResponseWriter, r *http.Request) *apiError {
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	newest := p.batches.newest(true)
	if after := r.URL.Query().Get("after_id"); after != "" {
		newest = newest[slices.IndexFunc(newest, func(b *simBatch) bool { return b.id == after })+1:]
	}
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		limit = 20
	}
	data := []object{}
	for _, b := range newest[:min(limit, len(newest))] {
		data = append(data, b.object())
	}
	writeJSON(w, http.StatusOK, encode(object{{"data", data}, {"has_more", len(newest) > limit}, {"first_id", nil}, {"last_id", nil}}))
	return nil
}

func (p *Provider) messageResults(w http.ResponseWriter, r *http.Request) *apiError {
	p.batches.mu.Lock()
	at := slices.IndexFunc(p.batches.list, func(b *simBatch) bool { return b.id == r.PathValue("id") })
	var content []byte
	if at >= 0 && p.batches.list[at].output != "" {
		content = p.batches.files[p.batches.list[at].output].content
	}
	p.batches.mu.Unlock()
	if content == nil {
		return notThere("results of a batch that has ended", r.PathValue("id"))
	}
	w.Header().Set("Content-Type", "application/x-jsonl")
	_, _ = w.Write(content) // a client that has gone needs no answer
	return nil
}

// deleteMessageBatch deletes the results; the batch stays in the list, so that who makes one twice is found out.
func (p *Provider) deleteMessageBatch(w http.ResponseWriter, r *http.Request) *apiError {
	p.batches.mu.Lock()
	defer p.batches.mu.Unlock()
	for _, b := range p.batches.list {
		if b.id == r.PathValue("id") && b.output != "" {
			delete(p.batches.files, b.output)
			b.output = ""
			writeJSON(w, http.StatusOK, encode(object{{"id", b.id}, {"type", "message_batch_deleted"}}))
			return nil
		}
	}
	return notThere("batch that has ended", r.PathValue("id"))
}

// messageResult is one line of the results.
func messageResult(line *batchLine, status int, body []byte) []byte {
	if status != http.StatusOK {
		return encode(object{{"custom_id", line.CustomID}, {"result", object{{"type", "errored"}, {"error", json.RawMessage(body)}}}})
	}
	return encode(object{{"custom_id", line.CustomID}, {"result", object{{"type", "succeeded"}, {"message", json.RawMessage(body)}}}})
}
