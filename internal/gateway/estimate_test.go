package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"occam/internal/engine"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/store"
)

// F21: streams without usage, of every kind of text, against the bill that a simulated provider keeps by the public tokenizer and
// the public rule for chats. The estimate is within 10 % for at least 95 % of them, and no bill is outside its row's bounds.
func TestF21EstimatesAgainstABill(t *testing.T) {
	provider, err := sim.New(sim.Options{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	listening, err := provider.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(listening.Close)
	w := newWorld(t, func(w *world, _ *Options) {
		w.snap = &Snapshot{Fallback: w.upstream("openai", listening.URL+"/v1"), Book: w.snap.Book, Limits: w.snap.Limits}
		w.snap.Limits.Patience = engine.Patience{Retries: -1}
	})
	type turn = map[string]string
	texts := sample.Traffic(11, size(160, 1000))
	for i, ticket := range texts {
		messages := []turn{{"role": "user", "content": ticket.Text}}
		switch i % 8 {
		case 1:
			messages = append([]turn{{"role": "system", "content": "Sort the ticket into one of refund, delivery, account, other, and name the order, if there is one."}}, messages...)
		case 2:
			messages = append(messages, turn{"role": "assistant", "content": "Could you tell me the order number?"}, turn{"role": "user", "content": "It is AB-1234, I think."})
		case 3:
			messages[0]["content"] = fmt.Sprintf("Antworte auf Deutsch: %s — naïve café, 東京の注文はどこですか？ 🙂 №%d", ticket.Text, i)
		case 4:
			messages[0]["content"] = fmt.Sprintf("%d\n", i) + strings.Repeat(ticket.Text+"\n", 1+2000/len(ticket.Text))
		case 5:
			messages[0]["content"] = fmt.Sprintf("```go\nfunc f%d(a []int) (sum int) {\n\tfor _, v := range a {\n\t\tsum += v * %d\n\t}\n\treturn sum\n}\n```\nWhat does it do?", i, i)
		case 6:
			messages[0]["content"] = fmt.Sprintf(`{"id": %d, "lines": [{"sku": "A-%d", "n": 3}, {"sku": "B-7", "n": 1}], "note": %q}`, i, i, ticket.Text)
		case 7:
			if i%40 == 7 { // beyond what is really counted
				messages[0]["content"] = fmt.Sprintf("%d ", i) + strings.Repeat(ticket.Text+" ", 1+60_000/len(ticket.Text))
			}
		}
		body, err := json.Marshal(map[string]any{"model": []string{"gpt-4o", "gpt-4o-mini"}[i%2], "stream": true, "messages": messages})
		if err != nil {
			t.Fatal(err)
		}
		if res, text := w.post(string(body)); res.StatusCode != http.StatusOK || !strings.Contains(text, "[DONE]") {
			t.Fatalf("%d %s", res.StatusCode, text)
		}
	}
	bill := map[string]sim.Charge{}
	for _, c := range provider.Bill() {
		bill[c.ClientID] = c
	}
	var off []float64
	for _, a := range w.book.paid() {
		c, ok := bill[a.ID]
		if !ok || a.State != store.Estimated {
			t.Fatalf("no charge for %+v", a)
		}
		off = append(off, math.Abs(float64(a.Cost-c.Amount))/float64(c.Amount))
		if c.Amount < a.CostLow || c.Amount > a.CostHigh {
			t.Errorf("billed %v for %d and %d tokens, outside %v to %v of %d and %d", c.Amount, c.Prompt, c.Completion, a.CostLow, a.CostHigh, a.Usage.Input, a.Usage.Output)
		}
	}
	slices.Sort(off)
	near, _ := slices.BinarySearch(off, .10)
	t.Logf("%d streams: %.1f %% within 10 %% of the bill; median %.2f %%, 95th percentile %.2f %%, worst %.2f %% (simulated provider)",
		len(off), 100*float64(near)/float64(len(off)), 100*off[len(off)/2], 100*off[len(off)*95/100], 100*off[len(off)-1])
	if len(off) != len(texts) || float64(near) < .95*float64(len(off)) {
		t.Error("the estimates are too far off")
	}
}
