// Package openai is the wire format of the OpenAI API and nothing else: it reads requests without losing a byte of them,
// finds what a reply bills, splits and writes server-sent events, and writes answers and errors in the shapes that the
// official clients parse. It does no I/O of its own.
package openai

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"unicode/utf8"
)

// A Span is a range of bytes [From, To) of a body. The zero Span is absent.
type Span struct{ From, To int }

func (s Span) absent() bool { return s.To == 0 }

func (s Span) of(body []byte) []byte { return body[s.From:s.To] }

// A Request is a chat completion request: the bytes as they came, and what the gateway needs to know of them. Fields that
// the gateway does not know stay in Body untouched.
type Request struct {
	Body         []byte
	Model        string
	Stream       bool
	IncludeUsage bool   // stream_options.include_usage
	MaxOutput    int64  // max_completion_tokens or max_tokens; 0 when the request sets none
	N            int64  // answers asked for, at least 1
	Schema       []byte // response_format.json_schema.schema, a part of Body; nil if none
	Format       string // response_format.type, "" if none
	Plain        bool   // nothing is asked for but one text answer: no tools, logprobs, audio or stop sequences
	User         string
	Opaque       int64 // images, sounds and files in the messages

	model, stream, streamOptions, includeUsage, messages, format, logprobs Span
}

// A Message is one turn. Text joins its text parts with newlines; Opaque marks content that is not plain text (images,
// audio, tool calls).
type Message struct {
	Role   string
	Text   string
	Opaque bool
}

// ParseRequest reads the body of POST /v1/chat/completions. It keeps body. The error, if any, is an *Error with status 400.
func ParseRequest(body []byte) (*Request, error) {
	r := &Request{Body: body, N: 1, Plain: true}
	if !utf8.Valid(body) {
		return nil, BadRequest("", "The body is not valid UTF-8.")
	}
	c := cursor{data: body}
	err := c.document(func() error { return c.object(func(key []byte) error { return r.member(&c, key) }) })
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return nil, refused
	case err != nil:
		return nil, BadRequest("", "The body is not valid JSON: "+err.Error()+".")
	case r.model.absent() || r.Model == "":
		return nil, BadRequest("model", "You must provide a model parameter.")
	case r.messages.absent():
		return nil, BadRequest("messages", "Missing required parameter: 'messages'.")
	case r.N < 1 || r.N > maxChoices:
		return nil, BadRequest("n", "n must be between 1 and "+strconv.Itoa(maxChoices)+".")
	case r.MaxOutput < 0:
		return nil, BadRequest("max_tokens", "max_tokens must not be negative.")
	}
	return r, nil
}

// maxChoices is the largest n; the public API accepts no more than 128.
const maxChoices = 128

// member reads one top-level member.
func (r *Request) member(c *cursor, key []byte) (err error) {
	start := c.pos
	switch string(key) {
	case "model":
		r.Model, _, err = c.str()
		r.model = Span{start, c.pos}
	case "stream":
		r.Stream, err = c.boolean()
		r.stream = Span{start, c.pos}
	case "stream_options":
		r.streamOptions, err = r.options(c)
	case "n":
		if c.peek() != 'n' {
			r.N, err = c.integer()
			r.Plain = r.Plain && r.N == 1
			break
		}
		err = c.value()
	case "max_tokens", "max_completion_tokens":
		var n int64
		n, err = c.integer()
		r.MaxOutput = max(r.MaxOutput, n)
		if n < 0 {
			err = BadRequest(string(key), string(key)+" must not be negative.")
		}
	case "messages":
		r.messages, err = r.turns(c)
	case "response_format":
		err = r.responseFormat(c)
	case "user":
		if c.peek() == '"' {
			r.User, _, err = c.str()
			break
		}
		err = c.value()
	default:
		var s Span
		s, err = c.span()
		if string(key) == "logprobs" {
			r.logprobs = s
		}
		r.Plain = r.Plain && (err != nil || plainMember(string(key), string(s.of(c.data))))
	}
	if errors.Is(err, errNoString) || errors.Is(err, errNoBool) || errors.Is(err, errNoInteger) {
		return BadRequest(string(key), "Invalid type for '"+string(key)+"': it "+err.Error()+".")
	}
	return err
}

// shaping are the members that change what an answer looks like or how many there are: with one of them set, only the model
// that was asked for can answer.
var shaping = []string{"tools", "functions", "tool_choice", "function_call", "stop", "logprobs", "top_logprobs", "audio",
	"modalities", "prediction", "web_search_options", "prefix", "continue_final_message"}

func plainMember(key, value string) bool {
	switch value {
	case "null", "false", "[]", `"none"`, `"auto"`, `["text"]`, "0":
		return true
	}
	return !slices.Contains(shaping, key)
}

// turns walks over the messages and counts what is not text in them.
func (r *Request) turns(c *cursor) (Span, error) {
	start := c.pos
	if c.peek() != '[' {
		return Span{}, BadRequest("messages", "Invalid type for 'messages': it must be an array.")
	}
	err := c.array(func() error {
		if c.peek() != '{' {
			return BadRequest("messages", "Every message must be an object.")
		}
		return c.object(func(key []byte) error {
			if string(key) == "content" && c.peek() == '[' {
				return c.array(func() error { return r.part(c) })
			}
			return c.value()
		})
	})
	return Span{start, c.pos}, err
}

// part walks over one content part.
func (r *Request) part(c *cursor) error {
	if c.peek() != '{' {
		return c.value()
	}
	opaque := true
	err := c.object(func(key []byte) error {
		s, err := c.span()
		if string(key) == "type" && err == nil {
			switch string(s.of(c.data)) {
			case `"text"`, `"input_text"`, `"output_text"`, `"refusal"`:
				opaque = false
			}
		}
		return err
	})
	if opaque {
		r.Opaque++
	}
	return err
}

func (r *Request) options(c *cursor) (Span, error) {
	start := c.pos
	if c.peek() != '{' {
		return c.span()
	}
	err := c.object(func(key []byte) (err error) {
		if string(key) == "include_usage" {
			at := c.pos
			r.IncludeUsage, err = c.boolean()
			r.includeUsage = Span{at, c.pos}
			return err
		}
		return c.value()
	})
	return Span{start, c.pos}, err
}

func (r *Request) responseFormat(c *cursor) error {
	start := c.pos
	if c.peek() != '{' {
		_, err := c.span()
		return err
	}
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "type":
			if c.peek() == '"' {
				r.Format, _, err = c.str()
				return err
			}
		case "json_schema":
			if c.peek() == '{' {
				return c.object(func(key []byte) error {
					s, err := c.span()
					if string(key) == "schema" && err == nil {
						r.Schema = s.of(c.data)
					}
					return err
				})
			}
		}
		return c.value()
	})
	r.format = Span{start, c.pos}
	return err
}

// Messages decodes the turns of the request.
func (r *Request) Messages() ([]Message, error) {
	var out []Message
	c := cursor{data: r.Body, pos: r.messages.From}
	err := c.array(func() error {
		var m Message
		err := c.object(func(key []byte) (err error) {
			switch {
			case string(key) == "role" && c.peek() == '"':
				m.Role, _, err = c.str()
				return err
			case string(key) == "content":
				return m.content(&c)
			case c.peek() == '[' || c.peek() == '{': // tool_calls, function_call, audio
				m.Opaque = m.Opaque || string(key) != "annotations"
			}
			return c.value()
		})
		out = append(out, m)
		return err
	})
	return out, err
}

func (m *Message) content(c *cursor) error {
	switch c.peek() {
	case '"':
		text, _, err := c.str()
		m.Text = text
		return err
	case '[':
	default:
		return c.value()
	}
	first := true
	return c.array(func() error {
		if c.peek() != '{' {
			m.Opaque = true
			return c.value()
		}
		var kind, text string
		err := c.object(func(key []byte) (err error) {
			switch {
			case string(key) == "type" && c.peek() == '"':
				kind, _, err = c.str()
			case string(key) == "text" && c.peek() == '"':
				text, _, err = c.str()
			default:
				err = c.value()
			}
			return err
		})
		if kind != "text" {
			m.Opaque = true
			return err
		}
		if !first {
			m.Text += "\n"
		}
		m.Text += text
		first = false
		return err
	})
}

// An Edit is what the gateway changes in a request before it passes it on. The zero Edit changes nothing, and everything
// outside the named places stays as it came, byte for byte.
type Edit struct {
	Model          string // the upstream's name of the model
	Usage          bool   // ask for usage in the stream
	NoStream       bool   // turn a streaming request into one that is not
	ResponseFormat []byte // set where the request has none
	System         string // put in front where the request has no system message
	Logprobs       bool   // ask for the tokens' log-probabilities
}

// Edited returns the body with the edit done: Body itself where nothing changes.
func (r *Request) Edited(e Edit) []byte {
	var p patch
	if e.Model != "" && e.Model != r.Model {
		p.replace(r.model, appendText(nil, e.Model))
	}
	switch {
	case e.NoStream && r.Stream:
		p.replace(r.stream, []byte("false"))
		if !r.streamOptions.absent() {
			p.replace(r.streamOptions, []byte("null"))
		}
	case e.Usage && r.Stream && !r.IncludeUsage:
		r.askForUsage(&p)
	}
	if e.ResponseFormat != nil && r.format.absent() {
		p.insert(r.model.To, append([]byte(`,"response_format":`), e.ResponseFormat...))
	}
	if e.Logprobs {
		if r.logprobs.absent() {
			p.insert(r.model.To, []byte(`,"logprobs":true`))
		} else {
			p.replace(r.logprobs, []byte("true"))
		}
	}
	if e.System != "" && !r.hasSystem() {
		text := appendText([]byte(`{"role":"system","content":`), e.System)
		p.insert(r.messages.From+1, append(text, "},"...))
	}
	return p.apply(r.Body)
}

func (r *Request) hasSystem() bool {
	messages, err := r.Messages()
	return err != nil || len(messages) == 0 ||
		slices.ContainsFunc(messages, func(m Message) bool { return m.Role == "system" || m.Role == "developer" })
}

// askForUsage sets stream_options.include_usage and leaves the other options as they are.
func (r *Request) askForUsage(p *patch) {
	options := r.streamOptions
	switch {
	case options.absent():
		p.insert(r.stream.To, []byte(`,"stream_options":{"include_usage":true}`))
	case !r.includeUsage.absent():
		p.replace(r.includeUsage, []byte("true"))
	case r.Body[options.From] != '{' || len(bytes.TrimSpace(r.Body[options.From+1:options.To-1])) == 0:
		p.replace(options, []byte(`{"include_usage":true}`))
	default:
		p.insert(options.From+1, []byte(`"include_usage":true,`))
	}
}

// A patch is a set of replacements in one body.
type patch []replacement

type replacement struct {
	at   Span
	text []byte
}

func (p *patch) replace(at Span, text []byte) { *p = append(*p, replacement{at, text}) }

func (p *patch) insert(at int, text []byte) { p.replace(Span{at, at}, text) }

func (p patch) apply(body []byte) []byte {
	if len(p) == 0 {
		return body
	}
	slices.SortStableFunc(p, func(a, b replacement) int { return a.at.From - b.at.From })
	out := make([]byte, 0, len(body)+256)
	done := 0
	for _, change := range p {
		out = append(out, body[done:change.at.From]...)
		out = append(out, change.text...)
		done = change.at.To
	}
	return append(out, body[done:]...)
}
