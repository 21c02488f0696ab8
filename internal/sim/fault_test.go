package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const streamed = hello + `,"stream":true,"stream_options":{"include_usage":true}}`

func asking(fault, body string) string { return strings.Replace(body, "gpt-4o", "sim:"+fault, 1) }

func TestStatusFaultsAreNotBilled(t *testing.T) {
	p, c := start(t, Options{Script: Sequence(Fault{Kind: Status, Status: 429, RetryAfter: "2"}, Fault{Kind: Status, Status: 500},
		Fault{Kind: Status, Status: 503})})
	for _, want := range []int{429, 500, 503} {
		response := c.post("/v1/chat/completions", hello+`}`)
		raw := read(t, response)
		if response.StatusCode != want || !strings.Contains(string(raw), `"error"`) {
			t.Errorf("status %d, want %d: %s", response.StatusCode, want, raw)
		}
		if got := response.Header.Get("Retry-After"); (want == 429) != (got == "2") {
			t.Errorf("status %d with Retry-After %q", want, got)
		}
	}
	if len(p.Bill()) != 0 || p.Served() != 3 {
		t.Errorf("%d charges, %d served", len(p.Bill()), p.Served())
	}
	c.chat(hello + `}`)
	if len(p.Bill()) != 1 {
		t.Error("the request after the script was not billed")
	}
}

func TestHangEndsWithTheCaller(t *testing.T) {
	p, c := start(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.try(ctx, "/v1/chat/completions", asking("hang", hello+`}`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the caller's deadline", err)
	}
	response := c.post("/v1/chat/completions", asking("hang,delay=1ms", hello+`}`))
	if read(t, response); response.StatusCode != 500 {
		t.Errorf("status %d after a hang", response.StatusCode)
	}
	if len(p.Bill()) != 0 {
		t.Error("a request that was never answered is billed")
	}
}

func TestHangEndsWithTheProvider(t *testing.T) {
	p, c := start(t, Options{})
	done := make(chan error)
	go func() {
		_, err := c.try(context.Background(), "/v1/chat/completions", asking("hang", hello+`}`))
		done <- err
	}()
	for p.Served() == 0 {
		time.Sleep(time.Millisecond)
	}
	p.Close()
	if err := <-done; err == nil {
		t.Error("a request that hung was answered")
	}
}

func TestResets(t *testing.T) {
	p, c := start(t, Options{})
	_, err := c.try(context.Background(), "/v1/chat/completions", asking("reset-before-headers", hello+`}`))
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("before headers: %v, want a reset", err)
	}
	if len(p.Bill()) != 0 {
		t.Error("reset before headers: billed")
	}
	for _, test := range []string{asking("reset-after-headers", streamed), asking("reset-mid-body,after=3", streamed),
		asking("reset-after-headers", hello+`}`), asking("reset-mid-body", hello+`}`)} {
		billed := len(p.Bill())
		response, err := c.try(context.Background(), "/v1/chat/completions", test)
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%.40s: %v, want a reset", test, err)
		}
		if last := lastCut(t, p, billed); last.Amount == 0 || last.Fault == "" {
			t.Errorf("%.40s: charge %+v", test, last)
		}
	}
}

func TestStallAndCutStreamsBillWhatWasMade(t *testing.T) {
	p, c := start(t, Options{})
	whole, _ := c.stream(streamed)
	for _, fault := range []string{"end-early,after=3", "reset-mid-body,after=3", "stall,after=3"} {
		billed := len(p.Bill())
		ctx, cancel := context.WithCancel(context.Background())
		response, err := c.try(ctx, "/v1/chat/completions", asking(fault, streamed))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(fault, "stall") { // all that was sent is there; the third token is made, then there is silence
			for lines, n := bufio.NewScanner(response.Body), 0; n < 3 && lines.Scan(); {
				n += strings.Count(lines.Text(), "data: ")
			}
			time.AfterFunc(time.Second, cancel)
		}
		_, _ = io.ReadAll(response.Body)
		response.Body.Close()
		cancel()
		charge := lastCut(t, p, billed)
		// one role event, then one token an event: the fault is due at the third token
		if charge.Completion != 3 || charge.Completion >= whole[len(whole)-1].Usage.Completion {
			t.Errorf("%s: %d tokens billed, want 3", fault, charge.Completion)
		}
	}
}

// lastCut waits for a charge beyond the first few to be marked as cut: the provider may notice later than the client.
func lastCut(t *testing.T, p *Provider, beyond int) Charge {
	t.Helper()
	for range 1000 {
		charges := p.Bill()
		if len(charges) > beyond && charges[len(charges)-1].Cut {
			return charges[len(charges)-1]
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the charge is not marked as cut")
	return Charge{}
}

func TestCancelledStreamIsBilledForWhatWasMade(t *testing.T) {
	p, c := start(t, Options{Latency: Latency{PerToken: 20 * time.Millisecond}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	response, err := c.try(ctx, "/v1/chat/completions", streamed)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = response.Body.Read(make([]byte, 10))
	cancel()
	response.Body.Close()
	charge := lastCut(t, p, 0)
	if charge.Prompt == 0 || int64(charge.Amount) != 2500*charge.Prompt+10000*charge.Completion {
		t.Errorf("charge %+v", charge)
	}
}

func TestTrickleAndSlowAnswersArrive(t *testing.T) {
	_, c := start(t, Options{})
	for _, fault := range []string{"trickle", "slow,delay=1ms"} {
		if got := c.chat(asking(fault, hello+`}`)); got.Usage == nil {
			t.Errorf("%s: %+v", fault, got)
		}
		if chunks, done := c.stream(asking(fault, streamed)); !done || chunks[len(chunks)-1].Usage == nil {
			t.Errorf("%s: the stream is not whole", fault)
		}
	}
}

// TestMalformedReplies checks that each kind spoils the reply, and that it is billed all the same.
func TestMalformedReplies(t *testing.T) {
	p, c := start(t, Options{})
	for i, kind := range MalformedReplies() {
		response := c.post("/v1/chat/completions", asking(string(kind), hello+`}`))
		raw := read(t, response)
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", kind, response.StatusCode)
		}
		if sound(response.Header.Get("Content-Type"), raw) {
			t.Errorf("%s: nothing is wrong with %s", kind, raw)
		}
		if charges := p.Bill(); len(charges) != i+1 || charges[i].Amount == 0 || charges[i].Fault != string(kind) {
			t.Errorf("%s: not billed", kind)
		}
		if spoilers[kind] == nil || kind == WrongType {
			continue
		}
		response = c.post("/v1/chat/completions", asking(string(kind), streamed))
		if raw := read(t, response); strings.Contains(string(raw), "[DONE]") {
			t.Errorf("%s: streamed as usual", kind)
		}
		p.bill.charges = p.bill.charges[:i+1]
	}
}

// sound is a careful reader's test of a reply.
func sound(contentType string, raw []byte) bool {
	var got struct {
		Choices []struct{ Message struct{ Content *string } }
		Usage   *struct {
			Prompt     *int64 `json:"prompt_tokens"`
			Completion *int64 `json:"completion_tokens"`
			Details    struct {
				Cached int64 `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
	}
	if contentType != "application/json" || json.Unmarshal(raw, &got) != nil || strings.ContainsRune(string(raw), '\uFFFD') ||
		strings.ToValidUTF8(string(raw), "") != string(raw) {
		return false
	}
	if len(got.Choices) != 1 || got.Choices[0].Message.Content == nil || !strings.Contains(*got.Choices[0].Message.Content, "simulated answer") {
		return false
	}
	u := got.Usage
	return u != nil && u.Prompt != nil && u.Completion != nil && *u.Prompt >= 0 && *u.Completion >= 0 && u.Details.Cached <= *u.Prompt
}

func TestMalformedStreams(t *testing.T) {
	p, c := start(t, Options{})
	usual := normalStream(string(read(t, c.post("/v1/chat/completions", streamed))))
	for _, kind := range append(MalformedStreams(), UnusualStreams()...) {
		raw := string(read(t, c.post("/v1/chat/completions", asking(string(kind), streamed))))
		if normalStream(raw) == usual {
			t.Errorf("%s: nothing is wrong with the stream", kind)
		}
		charges := p.Bill()
		if charges[len(charges)-1].Fault != string(kind) {
			t.Errorf("%s: not billed", kind)
		}
	}
	if raw := read(t, c.post("/v1/chat/completions", asking("long-line", streamed))); len(raw) < 10<<20 {
		t.Errorf("the long line has %d bytes", len(raw))
	}
}

// normalStream blanks what differs between two sound streams: names, ids, times and the words themselves.
func normalStream(raw string) string {
	var shape []string
	for _, line := range strings.Split(raw, "\n") {
		var o map[string]json.RawMessage
		data, isData := strings.CutPrefix(line, "data: ")
		switch {
		case isData && json.Unmarshal([]byte(data), &o) == nil:
			kind := "chunk"
			if o["usage"] != nil && string(o["usage"]) != "null" {
				kind += " with usage"
			}
			if len(o["choices"]) < 3 {
				kind += " without choices"
			}
			if o["error"] != nil || len(o["id"]) > 100 {
				kind += " and something odd"
			}
			if len(shape) == 0 || shape[len(shape)-1] != kind || strings.Contains(kind, "usage") {
				shape = append(shape, kind)
			}
		case line != "":
			shape = append(shape, line)
		}
	}
	return strings.Join(shape, "\n")
}

func TestBillIsExactUnderLoadAndFaults(t *testing.T) {
	p, c := start(t, Options{Seed: 3, Script: Random(3, 0.3, Fault{Kind: Status, Status: 500}, Fault{Kind: ResetBeforeHeaders},
		Fault{Kind: UsageNegative}, Fault{Kind: ResetMidBody, After: 2}, Fault{Kind: EmptyBody})})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 25 {
				body := hello + `}`
				if i%2 == 0 {
					body = streamed
				}
				response, err := c.try(context.Background(), "/v1/chat/completions", body)
				if err == nil {
					_, _ = io.ReadAll(response.Body)
					response.Body.Close()
				}
			}
		})
	}
	wg.Wait()
	seen, sum := map[string]bool{}, int64(0)
	for _, charge := range p.Bill() {
		if seen[charge.RequestID] {
			t.Errorf("%s is billed twice", charge.RequestID)
		}
		seen[charge.RequestID] = true
		want := 2500*(charge.Prompt-charge.Cached) + 1250*charge.Cached + 10000*charge.Completion
		if int64(charge.Amount) != want {
			t.Errorf("charge %+v, want %d", charge, want)
		}
		sum += int64(charge.Amount)
	}
	if sum != int64(p.Total()) || len(seen) == 0 || len(seen) >= 200 {
		t.Errorf("sum %d, total %d, %d charges", sum, p.Total(), len(seen))
	}
}

func TestFirstFailsThenAnswers(t *testing.T) {
	p, c := start(t, Options{})
	for i, want := range []int{503, 503, 200, 200} {
		response := c.post("/v1/chat/completions", asking("status=503,first=2", hello+`}`))
		if read(t, response); response.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i, response.StatusCode, want)
		}
	}
	if n := len(p.Bill()); n != 2 {
		t.Errorf("%d charges, want 2", n)
	}
}

func TestFaultTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Fault{Kind: rapid.SampledFrom(FaultKinds()).Draw(t, "kind"), After: rapid.IntRange(0, 50).Draw(t, "after"), First: rapid.IntRange(0, 3).Draw(t, "first"),
			Delay: time.Duration(rapid.IntRange(0, 1e9).Draw(t, "delay"))}
		if f.Kind == Status {
			f.Status = rapid.IntRange(400, 599).Draw(t, "status")
			f.RetryAfter = rapid.SampledFrom([]string{"", "1", "20"}).Draw(t, "retry")
		}
		if got, err := ParseFault(f.String()); err != nil || got != f {
			t.Fatalf("%q is read as %+v, %v", f.String(), got, err)
		}
	})
	for _, bad := range []string{"", "nothing", "status", "status=200", "status=x", "hang,delay=x", "hang,after=x", "hang,what=1"} {
		if _, err := ParseFault(bad); err == nil {
			t.Errorf("%q is read without an error", bad)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("status=429,retry-after=1")
	f.Add("stall,after=5,delay=2s")
	f.Fuzz(func(t *testing.T, text string) {
		if fault, err := ParseFault(text); err == nil && fault.Kind == "" {
			t.Errorf("%q is no fault", text)
		}
	})
}
