package sim

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
)

const (
	embeddingSize    = 1536
	embeddingSizeMax = 4096
	embeddingInputs  = 2048
)

// An embedding is the reply to one request for embeddings, with what it is billed for.
type embedding struct {
	model  string
	rates  Rates
	tokens int64
	body   []byte
}

// embeddings answers with unit vectors that depend on the text and the seed only.
func (p *Provider) embeddings(ctx context.Context, w http.ResponseWriter, call *call) *apiError {
	reply, problem := p.embed(call.body)
	if problem != nil {
		return problem
	}
	line := p.bill.open(reply.rates, Charge{RequestID: call.id, ClientID: clientID(call.request), At: call.start, Route: "/v1/embeddings",
		Model: reply.model, Prompt: reply.tokens})
	dice := rand.New(rand.NewPCG(call.seed, uint64(call.number)))
	if !wait(ctx, p.options.Latency.draw(dice, p.options.Latency.FirstToken)) {
		line.markCut()
		return nil
	}
	writeJSON(w, http.StatusOK, reply.body)
	return nil
}

func (p *Provider) embed(body []byte) (reply embedding, problem *apiError) {
	var request struct {
		Model          string          `json:"model"`
		Input          json.RawMessage `json:"input"`
		Dimensions     int             `json:"dimensions"`
		EncodingFormat string          `json:"encoding_format"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return reply, badRequest("", "Invalid type in the request: "+err.Error())
	}
	reply.model = request.Model
	if reply.rates, problem = p.rates(request.Model); problem != nil {
		return reply, problem
	}
	var inputs []string
	var one string
	if json.Unmarshal(request.Input, &one) == nil {
		inputs = []string{one}
	} else if json.Unmarshal(request.Input, &inputs) != nil || len(inputs) == 0 || len(inputs) > embeddingInputs {
		return reply, badRequest("input", "'input' must be a string or a list of 1 to 2048 strings.")
	}
	if request.Dimensions == 0 {
		request.Dimensions = embeddingSize
	}
	if request.Dimensions < 1 || request.Dimensions > embeddingSizeMax {
		return reply, badRequest("dimensions", fmt.Sprintf("'dimensions' must be between 1 and %d.", embeddingSizeMax))
	}
	data := make([]object, len(inputs))
	for i, text := range inputs {
		reply.tokens += p.counter.count(text)
		vector := p.vector(text, request.Dimensions)
		data[i] = object{{"object", "embedding"}, {"index", i}, {"embedding", vector}}
		if request.EncodingFormat == "base64" {
			data[i].set("embedding", base64Floats(vector))
		}
	}
	reply.body = encode(object{{"object", "list"}, {"data", data}, {"model", request.Model},
		{"usage", object{{"prompt_tokens", reply.tokens}, {"total_tokens", reply.tokens}}}})
	return reply, nil
}

func (p *Provider) vector(text string, size int) []float32 {
	r := rand.New(rand.NewPCG(hash(p.options.Seed, []byte(text)), 3))
	v, norm := make([]float32, size), 0.0
	for i := range v {
		x := r.NormFloat64()
		v[i], norm = float32(x), norm+x*x
	}
	scale := float32(1 / math.Sqrt(norm))
	for i := range v {
		v[i] *= scale
	}
	return v
}

func base64Floats(v []float32) string {
	raw := make([]byte, 0, 4*len(v))
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return base64.StdEncoding.EncodeToString(raw)
}
