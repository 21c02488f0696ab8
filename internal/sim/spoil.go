package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// spoilers are the faults that replace the body of a reply that is not streamed.
var spoilers = map[FaultKind]func(a *reply, body []byte) []byte{
	EmptyBody:   func(*reply, []byte) []byte { return nil },
	CutJSON:     func(_ *reply, body []byte) []byte { return body[:len(body)/2] },
	GarbageJSON: func(*reply, []byte) []byte { return []byte(`{"id": "chatcmpl-sim", "choices": [{]}`) },
	TwoJSON:     func(_ *reply, body []byte) []byte { return append(append(bytes.Clone(body), '\n'), body...) },
	ArrayJSON:   func(_ *reply, body []byte) []byte { return append(append([]byte{'['}, body...), ']') },
	NullJSON:    func(*reply, []byte) []byte { return []byte("null") },
	DeepJSON:    func(*reply, []byte) []byte { return []byte(`{"choices":` + strings.Repeat("[", nestingDepth)) },
	HTMLBody:    func(*reply, []byte) []byte { return []byte("<html><body><h1>502 Bad Gateway</h1></body></html>") },
	WrongType:   func(_ *reply, body []byte) []byte { return body },
	NotUTF8: func(_ *reply, body []byte) []byte {
		return bytes.Replace(body, []byte("assistant"), []byte("assist\xff\xfe"), 1)
	},
	ErrorWith200: func(*reply, []byte) []byte { return serverError("The server had an error.").body() },
	NoChoices:    spoilObject(func(o *object) { o.remove("choices") }),
	EmptyChoices: spoilObject(func(o *object) { o.set("choices", []any{}) }),
	NullContent:  spoilContent(nil), NumberContent: spoilContent(42),
	WrongSchema:  spoilContent(`{"something":"else"}`),
	ProseForJSON: spoilContent("Sure! Here is the answer you asked for."),
}

func spoilObject(change func(*object)) func(*reply, []byte) []byte {
	return func(a *reply, _ []byte) []byte {
		o := a.object()
		change(&o)
		return encode(o)
	}
}

func spoilContent(content any) func(*reply, []byte) []byte {
	return spoilObject(func(o *object) {
		for _, c := range o.get("choices").([]object) {
			message := c.get("message").(object)
			message.set("content", content)
		}
	})
}

// failWhole sends a reply that is not streamed, with its fault. It reports whether the caller got all of it.
func (p *Provider) failWhole(ctx context.Context, w http.ResponseWriter, call *call, a *reply, body []byte) bool {
	f := call.fault
	if spoil := spoilers[f.Kind]; spoil != nil {
		w.Header().Set("Content-Type", f.contentType("application/json"))
		if f.Kind == HTMLBody {
			w.Header().Set("Content-Type", "text/html")
		}
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(spoil(a, body))
		return true
	}
	switch f.Kind {
	case SlowAnswer:
		p.hang(ctx, f.Delay)
	case ResetAfterHeaders, ResetMidBody, EndEarly, Stall, Trickle:
		return p.failBody(ctx, w, f, body)
	default:
		o := call.dialect.whole(a)
		f.spoilUsage(&o)
		body = encode(o)
	}
	writeJSON(w, http.StatusOK, body)
	return ctx.Err() == nil
}

// failBody sends the headers with the right length, and then not the whole body, or only slowly.
func (p *Provider) failBody(ctx context.Context, w http.ResponseWriter, f Fault, body []byte) bool {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	if f.Kind == Trickle {
		for i := range body {
			if !wait(ctx, f.Delay) {
				return false
			}
			_, _ = w.Write(body[i : i+1])
			_ = rc.Flush()
		}
		return ctx.Err() == nil
	}
	if f.Kind != ResetAfterHeaders {
		_, _ = w.Write(body[:len(body)/2])
	}
	_ = rc.Flush()
	switch f.Kind {
	case EndEarly:
		panic(http.ErrAbortHandler)
	case Stall:
		p.hang(ctx, f.Delay)
		if f.Delay > 0 {
			_, _ = w.Write(body[len(body)/2:])
			return ctx.Err() == nil
		}
		panic(http.ErrAbortHandler)
	}
	reset(w)
	return false
}

// spoilUsage does to the usage of a reply or chunk what the fault says.
func (f Fault) spoilUsage(in *object) {
	usage := in.get("usage").(object)
	prompt, completion, details := "prompt_tokens", "completion_tokens", "prompt_tokens_details"
	if usage.get(prompt) == nil {
		prompt, completion, details = "input_tokens", "output_tokens", "input_tokens_details"
	}
	switch f.Kind {
	case UsageMissing:
		in.remove("usage")
		return
	case UsageNull:
		in.set("usage", nil)
		return
	case UsageNegative:
		usage.set(prompt, -usage.get(prompt).(int64))
		usage.set("total_tokens", -1)
	case UsageHuge:
		usage.set(completion, json.Number("98765432109876543210"))
	case UsageString:
		usage.set(prompt, fmt.Sprint(usage.get(prompt)))
	case UsageFraction:
		usage.set(completion, 12.5)
	case UsageParts:
		usage.set(details, object{{"cached_tokens", usage.get(prompt).(int64) * 3}})
	case UsagePartial:
		usage.remove(completion)
		usage.remove("total_tokens")
	}
	in.set("usage", usage)
}
