package openai

import "strconv"

// An Answer is a chat completion that this process writes itself. It has the members, in the order, that the public API
// writes, so that no client can tell it from the generalist's by its shape.
type Answer struct {
	ID      string // "chatcmpl-…"
	Created int64  // seconds since 1970
	Model   string // the model that the request named
	Content string
	Refusal string // set instead of Content
}

// zeroUsage is honest: a specialist's answer bills no tokens.
const zeroUsage = `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,` +
	`"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
	`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`

// AppendJSON appends the answer as one chat.completion object.
func (a *Answer) AppendJSON(dst []byte) []byte {
	dst = a.head(dst, "chat.completion")
	dst = append(dst, `"choices":[{"index":0,"message":{"role":"assistant","content":`...)
	dst = appendOrNull(dst, a.Content)
	dst = append(dst, `,"refusal":`...)
	dst = appendOrNull(dst, a.Refusal)
	dst = append(dst, `,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":`...)
	dst = append(dst, zeroUsage...)
	return append(dst, `,"service_tier":"default","system_fingerprint":null}`...)
}

func (a *Answer) head(dst []byte, object string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendText(dst, a.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = appendText(dst, a.Model)
	return append(dst, ',')
}

// AppendStream appends the answer as the whole stream of chat.completion.chunk events: the role, the text, the finish, the
// usage if it was asked for, and the end mark.
func (a *Answer) AppendStream(dst []byte, includeUsage bool) []byte {
	usage := ""
	if includeUsage {
		usage = `,"usage":null`
	}
	field, text := "content", a.Content
	if a.Refusal != "" {
		field, text = "refusal", a.Refusal
	}
	dst = a.chunk(dst, func(dst []byte) []byte {
		return append(dst, `{"role":"assistant","content":"","refusal":null}`...)
	}, "null", usage)
	dst = a.chunk(dst, func(dst []byte) []byte {
		dst = append(dst, `{"`+field+`":`...)
		return append(appendText(dst, text), '}')
	}, "null", usage)
	dst = a.chunk(dst, func(dst []byte) []byte { return append(dst, "{}"...) }, `"stop"`, usage)
	if includeUsage {
		dst = a.chunkHead(dst)
		dst = append(dst, `"choices":[],"usage":`+zeroUsage+"}\n\n"...)
	}
	return append(dst, "data: [DONE]\n\n"...)
}

func (a *Answer) chunkHead(dst []byte) []byte {
	dst = a.head(append(dst, "data: "...), "chat.completion.chunk")
	return append(dst, `"service_tier":"default","system_fingerprint":null,`...)
}

func (a *Answer) chunk(dst []byte, delta func([]byte) []byte, finish, usage string) []byte {
	dst = a.chunkHead(dst)
	dst = append(dst, `"choices":[{"index":0,"delta":`...)
	dst = delta(dst)
	dst = append(dst, `,"logprobs":null,"finish_reason":`+finish+`}]`+usage+"}\n\n"...)
	return dst
}

// AppendErrorEvent appends the error as the event that the official clients raise in the middle of a stream.
func (e *Error) AppendErrorEvent(dst []byte) []byte {
	dst = append(dst, "data: "...)
	dst = e.AppendJSON(dst)
	return append(dst, "\n\n"...)
}
