package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"occam/internal/cost"
	"occam/internal/lifecycle"
	"occam/internal/task"
)

// A ticket is one message to replay, with what is true of it.
type ticket struct {
	text  string
	truth task.Output
}

// A replay sends tickets through a gateway the way an app would: OpenAI chat completions with a strict JSON schema.
type replay struct {
	client  *http.Client
	baseURL string // …/v1
	key     string
	model   string
	system  string
	task    *task.Task
	workers int
	now     func() time.Time
}

// replayed is what came back for one ticket.
type replayed struct {
	served    bool // by a specialist
	right     bool
	latency   time.Duration
	failure   error
	requestID string
	cost      cost.Amount // as the gateway says
}

// run replays every ticket; each is called after each answer, from one goroutine at a time.
func (r *replay) run(ctx context.Context, tickets []ticket, each func(done int, one replayed)) ([]replayed, error) {
	results := make([]replayed, len(tickets))
	next, finished := make(chan int), make(chan int)
	var workers sync.WaitGroup
	for range r.workers {
		workers.Go(func() {
			for i := range next {
				results[i] = r.one(ctx, tickets[i])
				finished <- i
			}
		})
	}
	go func() {
		defer close(next)
		for i := range tickets {
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() { workers.Wait(); close(finished) }()
	done := 0
	for i := range finished {
		done++
		each(done, results[i])
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("stopped after %d of %d tickets: %w", done, len(tickets), err)
	}
	return results, nil
}

// one asks for one ticket and compares the answer with the truth. A failure is an answer that is wrong.
func (r *replay) one(ctx context.Context, t ticket) replayed {
	start := r.now()
	answer, header, err := r.ask(ctx, t.text)
	result := replayed{latency: r.now().Sub(start), failure: err}
	if err != nil {
		return result
	}
	result.served = header.Get("X-Occam-Reason") == "certified"
	result.requestID = header.Get("X-Occam-Request-Id")
	if usd, err := strconv.ParseFloat(header.Get("X-Occam-Cost-Usd"), 64); err == nil {
		result.cost = cost.FromUSD(usd)
	}
	values, err := task.ParseAnswer(r.task.Fields, []byte(answer))
	if err != nil {
		result.failure = err
		return result
	}
	p := task.Prediction{Values: values}
	result.right = p.Right(r.task.Fields, t.truth)
	return result
}

// body writes the request for one text.
func (r *replay) body(text string) []byte {
	request := map[string]any{
		"model": r.model,
		"messages": []map[string]string{
			{"role": "system", "content": r.system},
			{"role": "user", "content": r.task.Input.Fill(text)},
		},
		"temperature": 0,
		"response_format": map[string]any{
			"type":        "json_schema",
			"json_schema": map[string]any{"name": "ticket", "strict": true, "schema": json.RawMessage(task.Schema(r.task.Fields))},
		},
	}
	encoded, err := json.Marshal(request)
	if err != nil {
		panic(err) // strings and a schema we wrote ourselves
	}
	return encoded
}

// maxReply bounds what is read of one answer.
const maxReply = 1 << 20

func (r *replay) ask(ctx context.Context, text string) (string, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.baseURL+"/chat/completions", bytes.NewReader(r.body(text)))
	if err != nil {
		return "", nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+r.key)
	response, err := r.client.Do(request)
	if err != nil {
		return "", nil, err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	if err != nil {
		return "", nil, err
	}
	if response.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("status %d: %.300s", response.StatusCode, reply)
	}
	var completion struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(reply, &completion); err != nil {
		return "", nil, fmt.Errorf("the answer is no chat completion: %w", err)
	}
	if len(completion.Choices) == 0 {
		return "", nil, errors.New("the answer has no choices")
	}
	return completion.Choices[0].Message.Content, response.Header, nil
}

// replaySummary adds up a replay.
type replaySummary struct {
	tickets, served, failed int
	accuracy                lifecycle.Proportion // of the whole system, failures counted as wrong
	servedAccuracy          lifecycle.Proportion
	specialist, generalist  lifecycle.Quantiles // milliseconds
	firstFailure            error
}

func summarize(results []replayed) replaySummary {
	var s replaySummary
	var right, servedRight int
	var fast, slow []time.Duration
	for _, r := range results {
		switch {
		case r.failure != nil:
			s.failed++
			if s.firstFailure == nil {
				s.firstFailure = r.failure
			}
		case r.served:
			s.served++
			fast = append(fast, r.latency)
		default:
			slow = append(slow, r.latency)
		}
		if r.right {
			right++
			if r.served {
				servedRight++
			}
		}
	}
	s.tickets = len(results)
	s.accuracy = lifecycle.NewProportion(right, s.tickets)
	s.servedAccuracy = lifecycle.NewProportion(servedRight, s.served)
	s.specialist = lifecycle.NewQuantiles(fast, time.Millisecond)
	s.generalist = lifecycle.NewQuantiles(slow, time.Millisecond)
	return s
}

func (s replaySummary) coverage() float64 {
	if s.tickets == 0 {
		return 0
	}
	return float64(s.served) / float64(s.tickets)
}

// genericPrompt is the demo's system prompt for data that it knows nothing of.
func genericPrompt(t *task.Task) string {
	names := make([]string, len(t.Fields))
	for i, f := range t.Fields {
		names[i] = f.Name
	}
	slices.Sort(names)
	return fmt.Sprintf("Read the customer's message and answer with JSON that fits the schema: %v. A field that is to be extracted "+
		"is copied exactly as it stands in the text, or null if there is none.", names)
}
