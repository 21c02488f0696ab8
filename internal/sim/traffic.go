package sim

import (
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"occam/internal/task"
)

// Traffic describes a stream of chat completion requests as an app would send them. Everything follows from the seed.
type Traffic struct {
	Seed        uint64
	Task        task.Task // its fields are asked for as a JSON Schema, its generalist is the model
	PerSecond   float64   // mean rate of independent arrivals; 0: all at once
	StreamShare float64   // share of requests that ask for a stream
	OpenShare   float64   // share of further requests that belong to no task: free questions
}

// An Input is one text with its true answer.
type Input struct {
	ID    string
	Text  string
	Truth task.Output
}

// A Request is one HTTP request to POST /v1/chat/completions.
type Request struct {
	Input
	Open   bool          // a free question: Input has a text only
	Stream bool          // the body asks for a stream with usage
	At     time.Duration // since the start
	Body   []byte
}

// Requests sends every input once, in order, with free questions among them.
func (t Traffic) Requests(inputs []Input) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		r := rand.New(rand.NewPCG(t.Seed, 5))
		at := time.Duration(0)
		format := t.format()
		next := 0
		for n := 0; next < len(inputs); n++ {
			if t.PerSecond > 0 {
				at += time.Duration(r.ExpFloat64() / t.PerSecond * float64(time.Second))
			}
			request := Request{At: at, Stream: r.Float64() < t.StreamShare}
			if r.Float64() < t.OpenShare {
				request.Open, request.Input = true, Input{ID: fmt.Sprintf("open-%d", n), Text: openQuestion(r)}
				request.Body = t.body(request, nil)
			} else {
				request.Input = inputs[next]
				request.Body = t.body(request, format)
				next++
			}
			if !yield(request) {
				return
			}
		}
	}
}

// Oracle knows the true answer to each input, as the provider's Options want it.
func (t Traffic) Oracle(inputs []Input) func(string) task.Output {
	known := make(map[string]task.Output, len(inputs))
	for _, in := range inputs {
		message := t.Task.Input.Fill(in.Text)
		if _, twice := known[message]; !twice {
			known[message] = in.Truth
		}
	}
	return func(message string) task.Output { return known[message] }
}

// format is the response_format that asks for the task's fields.
func (t Traffic) format() any {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == ' ' {
			return '_'
		}
		return r
	}, t.Task.Name)
	return object{{"type", "json_schema"},
		{"json_schema", object{{"name", name}, {"strict", true}, {"schema", json.RawMessage(task.Schema(t.Task.Fields))}}}}
}

func (t Traffic) body(request Request, format any) []byte {
	messages := []object{}
	content := request.Text
	if !request.Open {
		if t.Task.System != "" {
			messages = append(messages, object{{"role", "system"}, {"content", t.Task.System}})
		}
		content = t.Task.Input.Fill(request.Text)
	}
	body := object{{"model", t.Task.Generalist}, {"messages", append(messages, object{{"role", "user"}, {"content", content}})}}
	if format != nil {
		body = body.with("response_format", format).with("temperature", 0)
	}
	if request.Stream {
		body = body.with("stream", true).with("stream_options", object{{"include_usage", true}})
	}
	return encode(body)
}

var (
	openVerbs  = []string{"Explain", "Summarise", "Write a short note about", "Give three arguments for", "Compare two views of", "Write a poem about"}
	openTopics = []string{"17th-century France", "how tides work", "remote work", "the history of the postcode", "good packaging",
		"learning a language at sixty", "bread", "why invoices have numbers", "the rules of chess", "sleep"}
)

func openQuestion(r *rand.Rand) string {
	return fmt.Sprintf("%s %s, in at most %d sentences.", openVerbs[r.IntN(len(openVerbs))], openTopics[r.IntN(len(openTopics))], 2+r.IntN(6))
}
