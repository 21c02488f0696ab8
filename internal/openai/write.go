package openai

import "strconv"

// An Answer is an answer that this process writes itself. It has the members, in the order, that the public APIs write, so
// that no client can tell it from the generalist's by its shape.
type Answer struct {
	ID      string // unique part of the answer's ID
	Created int64  // seconds since 1970
	Model   string // the model that the request named
	Content string
	Refusal string // set instead of Content
}

// Append appends the answer to a request in the request's shape: as one JSON object, or as the whole event stream.
func (a *Answer) Append(dst []byte, r *Request) []byte {
	switch {
	case r.API == Responses && r.Stream:
		return a.appendResponseStream(dst)
	case r.API == Responses:
		return a.appendResponse(dst, true)
	case r.API == Messages && r.Stream:
		return a.appendMessageStream(dst)
	case r.API == Messages:
		return a.appendMessage(dst, true)
	case r.Stream:
		return a.appendChatStream(dst, r.IncludeUsage)
	default:
		return a.appendChat(dst)
	}
}

// zeroUsage is honest: a specialist's answer bills no tokens.
const zeroUsage = `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,` +
	`"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},` +
	`"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}`

// appendChat appends the answer as one chat.completion object.
func (a *Answer) appendChat(dst []byte) []byte {
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
	dst = appendText(dst, "chatcmpl-"+a.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = appendText(dst, a.Model)
	return append(dst, ',')
}

// appendChatStream appends the answer as a stream of chat.completion.chunk events: the role, the text, the finish, the usage
// if it was asked for, and the end mark.
func (a *Answer) appendChatStream(dst []byte, includeUsage bool) []byte {
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

// NewChat makes a chat completion request of text turns: what the gateway asks in its own name.
func NewChat(model string, turns []Message, maxOutput int64) *Request {
	body := append([]byte(`{"model":`), appendText(nil, model)...)
	if maxOutput > 0 {
		body = append(strconv.AppendInt(append(body, `,"max_tokens":`...), maxOutput, 10), `,"messages":[`...)
	} else {
		body = append(body, `,"messages":[`...)
	}
	for i, m := range turns {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendText(append(body, `{"role":`...), m.Role)
		body = appendText(append(body, `,"content":`...), m.Text)
		body = append(body, '}')
	}
	r, err := Parse(Chat, append(body, "]}"...))
	if err != nil {
		panic("openai: NewChat wrote what Parse refuses: " + err.Error()) // its test draws every text
	}
	return r
}
