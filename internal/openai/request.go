// Package openai is the wire format of the OpenAI API and nothing else: it reads requests without losing a byte of them,
// finds what a reply bills, splits and writes server-sent events, and writes answers and errors in the shapes that the
// official clients parse. It does no I/O of its own.
package openai

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Span is a range of bytes [From, To) of a body. The zero Span is absent.
type Span struct{ From, To int }

func (s Span) absent() bool { return s.To == 0 }

func (s Span) of(body []byte) []byte { return body[s.From:s.To] }

// An API is one of the shapes that the gateway speaks. The names are those of OpenTelemetry's gen_ai.operation.name where
// there is one.
type API string

const (
	Chat       API = "chat"       // POST /v1/chat/completions
	Responses  API = "responses"  // POST /v1/responses
	Messages   API = "messages"   // POST /v1/messages, Anthropic's
	Embeddings API = "embeddings" // POST /v1/embeddings
)

// Path is where the API stands below a base URL that ends with the version.
func (a API) Path() string {
	if a == Chat {
		return "/chat/completions"
	}
	return "/" + string(a)
}

// A Request is one request for a model: the bytes as they came, and what the gateway needs to know of them. Members that the
// gateway does not know stay in Body untouched.
type Request struct {
	API          API
	Body         []byte
	Model        string
	Stream       bool
	IncludeUsage bool   // the stream ends with usage: asked for in a chat, always so in the other shapes
	MaxOutput    int64  // most tokens of one answer; 0 when the request sets none
	N            int64  // answers asked for, at least 1
	Schema       []byte // JSON Schema that the answer must have, a part of Body; nil if none
	Format       string // type of the answer's format, "" if none is asked for
	Plain        bool   // nothing is asked for but one text answer: no tools, logprobs, audio or stop sequences
	Opaque       int64  // images, sounds and files in the messages

	model, stream, streamOptions, includeUsage, system, messages, format, formatIn, logprobs Span
}

// A Message is one turn. Text joins its text parts with newlines; Opaque marks content that is not plain text (images,
// audio, tool calls).
type Message struct {
	Role   string
	Text   string
	Opaque bool
}

// Parse reads a request's body. It keeps body. The error, if any, is an *Error with status 400.
func Parse(api API, body []byte) (*Request, error) {
	r := &Request{API: api, Body: body, N: 1, Plain: true, IncludeUsage: api != Chat}
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
	case r.messages.absent() && (api == Chat || api == Messages):
		return nil, BadRequest("messages", "Missing required parameter: 'messages'.")
	case r.messages.absent() && api == Embeddings:
		return nil, BadRequest("input", "Missing required parameter: 'input'.")
	case r.N < 1 || r.N > maxChoices:
		return nil, BadRequest("n", "n must be between 1 and "+strconv.Itoa(maxChoices)+".")
	}
	return r, nil
}

// ParseOther reads only the model of a body whose shape the gateway passes on without knowing it.
func ParseOther(body []byte) (*Request, error) {
	return Parse("", body)
}

// maxChoices is the largest n; the public API accepts no more than 128.
const maxChoices = 128

// member reads one top-level member.
func (r *Request) member(c *cursor, key []byte) (err error) {
	start := c.pos
	if meant := folded(key); meant != "" {
		return BadRequest(string(key), "The member '"+string(key)+"' differs from '"+meant+"' in case only. Some servers would read it as '"+meant+"'.")
	}
	switch string(key) {
	case "model":
		r.Model, _, err = c.str()
		r.model = Span{start, c.pos}
	case "stream":
		r.Stream, err = c.boolean()
		r.stream = Span{start, c.pos}
	case "max_tokens", "max_completion_tokens", "max_output_tokens":
		var n int64
		n, err = c.integer()
		r.MaxOutput = max(r.MaxOutput, n)
		if n < 0 {
			err = BadRequest(string(key), string(key)+" must not be negative.")
		}
	default:
		switch r.API {
		case Chat:
			err = r.chatMember(c, string(key))
		case Responses:
			err = r.responsesMember(c, string(key))
		case Messages:
			err = r.anthropicMember(c, string(key))
		case Embeddings:
			var s Span
			if s, err = c.span(); string(key) == "input" {
				r.messages = s
			}
		default:
			err = c.value()
		}
	}
	if errors.Is(err, errNoString) || errors.Is(err, errNoBool) || errors.Is(err, errNoInteger) {
		return BadRequest(string(key), "Invalid type for '"+string(key)+"': it "+err.Error()+".")
	}
	return err
}

// decisive are the members that say who answers, and what that may cost.
var decisive = []string{"model", "stream", "messages", "input", "n", "max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options",
	"response_format", "tools", "system", "instructions", "models"}

// folded is the decisive member that a key would be taken for by a parser that does not look at case, as Go's own does not; "" for
// that member itself and for every other key.
func folded(key []byte) string {
	if !slices.ContainsFunc(key, func(b byte) bool { return b >= utf8.RuneSelf || 'A' <= b && b <= 'Z' }) {
		return ""
	}
	for _, name := range decisive {
		if strings.EqualFold(name, string(key)) {
			return name
		}
	}
	return ""
}

// chatMember reads one member of a chat completion request.
func (r *Request) chatMember(c *cursor, key string) (err error) {
	start := c.pos
	switch key {
	case "stream_options":
		r.streamOptions, err = r.options(c)
	case "n":
		if c.peek() == 'n' {
			return c.value()
		}
		r.N, err = c.integer()
		r.Plain = r.Plain && r.N == 1
	case "messages":
		r.messages, err = r.turns(c)
	case "response_format":
		err = r.formatMember(c, "json_schema")
		r.format = Span{start, c.pos}
	case "logprobs":
		r.logprobs, err = r.shape(c, key)
	default:
		_, err = r.shape(c, key)
	}
	return err
}

// formatMember reads an object {"type":…, "schema":…}, with the schema in another object of the given name where there is one.
func (r *Request) formatMember(c *cursor, within string) error {
	if c.peek() != '{' {
		return c.value()
	}
	return c.object(func(key []byte) (err error) {
		switch {
		case string(key) == "type" && c.peek() == '"':
			r.Format, _, err = c.str()
			return err
		case string(key) == within && c.peek() == '{':
			return r.formatMember(c, "")
		}
		s, err := c.span()
		if string(key) == "schema" && err == nil && r.Body[s.From] == '{' {
			r.Schema = s.of(r.Body)
		}
		return err
	})
}

// shape walks over a member and notes when it asks for more than a plain answer.
func (r *Request) shape(c *cursor, key string) (Span, error) {
	s, err := c.span()
	r.Plain = r.Plain && (err != nil || plainMember(key, string(s.of(c.data))))
	return s, err
}

// shaping are the members that change what an answer looks like or how many there are: with one of them set, only the model
// that was asked for can answer.
var shaping = []string{"tools", "functions", "tool_choice", "function_call", "stop", "logprobs", "top_logprobs", "audio",
	"modalities", "prediction", "web_search_options", "prefix", "continue_final_message", // chat
	"previous_response_id", "conversation", "background", "include", "prompt", // responses
	"stop_sequences", "thinking", "mcp_servers", "container"} // messages

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
		if string(key) == "type" && err == nil && r.Body[s.From] == '"' {
			kind := s.of(c.data)
			opaque = !isText(string(kind[1 : len(kind)-1]))
		}
		return err
	})
	if opaque {
		r.Opaque++
	}
	return err
}

func isText(kind string) bool {
	return kind == "text" || kind == "input_text" || kind == "output_text"
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

// Turns decodes the messages of the request, a system prompt that stands outside them first.
func (r *Request) Turns() ([]Message, error) {
	var out []Message
	if !r.system.absent() {
		m := Message{Role: "system"}
		if err := m.content(&cursor{data: r.Body, pos: r.system.From}); err != nil {
			return nil, err
		}
		if m.Text != "" || m.Opaque {
			out = append(out, m)
		}
	}
	c := cursor{data: r.Body, pos: r.messages.From}
	if r.messages.absent() {
		return out, nil
	}
	if c.peek() != '[' { // the input of a response, as one text
		text, _, err := c.str()
		return append(out, Message{Role: "user", Text: text}), err
	}
	err := c.array(func() error {
		m, err := readMessage(&c)
		out = append(out, m)
		return err
	})
	return out, err
}

func readMessage(c *cursor) (m Message, err error) {
	if c.peek() != '{' {
		m.Opaque = true
		return m, c.value()
	}
	err = c.object(func(key []byte) (err error) {
		switch {
		case string(key) == "role" && c.peek() == '"':
			m.Role, _, err = c.str()
			return err
		case string(key) == "content":
			return m.content(c)
		case string(key) == "type" && c.peek() == '"': // an item of a response's input
			kind, _, err := c.str()
			m.Opaque = m.Opaque || kind != "message"
			return err
		case c.peek() == '[' || c.peek() == '{': // tool_calls, function_call, audio
			m.Opaque = m.Opaque || string(key) != "annotations"
		}
		return c.value()
	})
	return m, err
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
		if !isText(kind) {
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
	Model    string // the upstream's name of the model
	Usage    bool   // ask for usage in the stream
	NoStream bool   // turn a streaming request into one that is not
	Schema   []byte // of the answer, set where the request asks for no format
	System   string // put in front where the request has no system prompt
	Logprobs bool   // ask for the tokens' log-probabilities, of a chat
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
	if e.Schema != nil && r.Format == "" {
		r.askForSchema(&p, e.Schema)
	}
	if e.Logprobs && r.API == Chat {
		p.set(r, "logprobs", r.logprobs, []byte("true"))
	}
	if e.System != "" && !r.hasSystem() {
		r.addSystem(&p, e.System)
	}
	return p.apply(r.Body)
}

// askForSchema sets the answer's format, in the words of the request's shape.
func (r *Request) askForSchema(p *patch, schema []byte) {
	named := append([]byte(`"name":"answer","strict":true,"schema":`), schema...)
	switch r.API {
	case Chat:
		p.set(r, "response_format", r.format, wrap(`{"type":"json_schema","json_schema":{`, named, "}}"))
	case Responses:
		r.setFormat(p, "text", wrap(`{"type":"json_schema",`, named, "}"))
	case Messages:
		r.setFormat(p, "output_config", wrap(`{"type":"json_schema","schema":`, schema, "}"))
	}
}

// setFormat sets the member "format" of a top-level member, and keeps what else stands in it.
func (r *Request) setFormat(p *patch, member string, format []byte) {
	switch in := r.formatIn; {
	case !r.format.absent():
		p.replace(r.format, format)
	case in.absent() || r.Body[in.From] != '{':
		p.set(r, member, in, wrap(`{"format":`, format, "}"))
	case len(bytes.TrimSpace(r.Body[in.From+1:in.To-1])) == 0:
		p.replace(in, wrap(`{"format":`, format, "}"))
	default:
		p.insert(in.From+1, wrap(`"format":`, format, ","))
	}
}

func wrap(before string, text []byte, after string) []byte {
	return append(append([]byte(before), text...), after...)
}

func (r *Request) hasSystem() bool {
	messages, err := r.Turns()
	return err != nil || len(messages) == 0 ||
		slices.ContainsFunc(messages, func(m Message) bool { return m.Role == "system" || m.Role == "developer" })
}

func (r *Request) addSystem(p *patch, system string) {
	switch r.API {
	case Responses:
		p.set(r, "instructions", r.system, appendText(nil, system))
	case Messages:
		p.set(r, "system", r.system, appendText(nil, system))
	default:
		text := appendText([]byte(`{"role":"system","content":`), system)
		p.insert(r.messages.From+1, append(text, "},"...))
	}
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

// set replaces a top-level member's value, or adds the member where it is absent.
func (p *patch) set(r *Request, member string, at Span, value []byte) {
	if at.absent() {
		p.insert(r.model.To, wrap(`,"`+member+`":`, value, ""))
		return
	}
	p.replace(at, value)
}

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
