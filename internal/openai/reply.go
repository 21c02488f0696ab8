package openai

import (
	"bytes"
	"math"
	"strconv"

	"occam/internal/cost"
)

// maxTokens is the largest count that is believed: no model reads or writes more in one request.
const maxTokens = 100_000_000

// A Reply is what the gateway needs to know of a chat completion, a response, an embedding, an Anthropic message or one event
// of a stream of them: what it bills and, for the first choice, what it says.
type Reply struct {
	Kind    string // type of the event, "" of a chat's chunk
	Model   string
	Usage   cost.Usage
	Billed  bool    // Usage was there and can be true
	Content string  // text of the first choice
	Refusal bool    // the model refused
	Finish  string  // finish_reason of the first choice
	Choices int     // how many choices stand in it
	Error   bool    // it holds an error object
	partial bool    // Usage has only the output, the input was said before
	LogProb float64 // of the first choice's text: the sum over its tokens; NaN where the reply has none
}

// ParseReply reads a whole reply. It is lenient where the gateway does not depend on a member: what it cannot read it leaves
// at zero, and a reply that is no JSON object is an empty one; ok is false then.
func ParseReply(body []byte) (r Reply, ok bool) {
	r.LogProb = math.NaN()
	c := cursor{data: body}
	err := c.document(func() error { return c.object(func(key []byte) error { return r.member(&c, key) }) })
	if err != nil {
		return Reply{}, false
	}
	return r, true
}

func (r *Reply) member(c *cursor, key []byte) (err error) {
	nested := func() error { return c.object(func(key []byte) error { return r.member(c, key) }) }
	switch first := c.peek(); string(key) {
	case "type":
		if first == '"' && r.Kind == "" {
			r.Kind, _, err = c.str()
			return err
		}
	case "usage":
		if first == '{' {
			return r.readUsage(c)
		}
	case "model":
		if first == '"' {
			r.Model, _, err = c.str()
			return err
		}
	case "choices":
		if first == '[' {
			return c.array(func() error { return r.anyChoice(c) })
		}
	case "error":
		r.Error = r.Error || first != 'n'
	case "response", "message": // of an event of a response, of Anthropic's message_start
		if first == '{' {
			return nested()
		}
	case "output", "content":
		if first == '[' {
			return c.array(func() error { return r.block(c) })
		}
	case "delta":
		switch first {
		case '"':
			r.Content, _, err = c.str()
			return err
		case '{':
			return r.block(c)
		}
	case "stop_reason", "status":
		if first == '"' {
			r.Finish, _, err = c.str()
			return err
		}
	}
	return c.value()
}

// block reads a part of a response's or an Anthropic message's content, or a change of it, and adds its text.
func (r *Reply) block(c *cursor) error {
	if c.peek() != '{' {
		return c.value()
	}
	return c.object(func(key []byte) error {
		switch {
		case (string(key) == "text" || string(key) == "refusal" || string(key) == "partial_json") && c.peek() == '"':
			text, _, err := c.str()
			r.Content += text
			r.Refusal = r.Refusal || string(key) == "refusal"
			return err
		case string(key) == "stop_reason" && c.peek() == '"':
			finish, _, err := c.str()
			r.Finish = finish
			return err
		case string(key) == "content" && c.peek() == '[':
			return c.array(func() error { return r.block(c) })
		}
		return c.value()
	})
}

func (r *Reply) readUsage(c *cursor) (err error) {
	n := usageCounts{ok: true}
	if err = c.object(func(key []byte) error { return n.member(c, string(key)) }); err != nil || !n.ok || !n.seen {
		r.Usage, r.Billed = cost.Usage{}, false
		return err
	}
	r.Usage, r.partial = n.Usage, !n.input
	if n.separate && n.beside {
		r.Usage.Input += r.Usage.Cached + r.Usage.CacheWrite
	}
	r.Billed = r.Usage.Check() == nil
	return nil
}

func (r *Reply) anyChoice(c *cursor) error {
	r.Choices++
	if r.Choices > 1 || c.peek() != '{' {
		return c.value()
	}
	return c.object(func(key []byte) error { return r.choice(c, key) })
}

func (r *Reply) choice(c *cursor, key []byte) (err error) {
	switch {
	case (string(key) == "message" || string(key) == "delta") && c.peek() == '{':
		return c.object(func(key []byte) (err error) {
			switch {
			case string(key) == "content" && c.peek() == '"':
				r.Content, _, err = c.str()
				return err
			case string(key) == "refusal" && c.peek() == '"':
				r.Refusal = true
			}
			return c.value()
		})
	case string(key) == "finish_reason" && c.peek() == '"':
		r.Finish, _, err = c.str()
		return err
	case string(key) == "logprobs" && c.peek() == '{':
		return c.object(func(key []byte) error {
			if string(key) != "content" || c.peek() != '[' {
				return c.value()
			}
			r.LogProb = 0
			return c.array(func() error { return r.token(c) })
		})
	}
	return c.value()
}

// token adds one token's log-probability. One that is missing or positive spoils the sum.
func (r *Reply) token(c *cursor) error {
	logProb := math.NaN()
	if c.peek() != '{' {
		r.LogProb = logProb
		return c.value()
	}
	err := c.object(func(key []byte) error {
		s, err := c.span()
		if string(key) == "logprob" && err == nil {
			if f, err := strconv.ParseFloat(string(s.of(c.data)), 64); err == nil && f <= 0 {
				logProb = f
			}
		}
		return err
	})
	r.LogProb += logProb
	return err
}

// usageCounts reads a usage object in the shape of chat completions (prompt_tokens), of responses (input_tokens) or of
// Anthropic messages (input_tokens without the cached ones).
type usageCounts struct {
	cost.Usage
	seen     bool // a main count was there
	input    bool // the input's count was there
	ok       bool // no count was malformed, negative or beyond belief
	separate bool // Anthropic's names for cached tokens were there
	beside   bool // the input was called input_tokens: with those names, cached tokens stand beside it, not in it
}

func (n *usageCounts) member(c *cursor, key string) error {
	switch key {
	case "prompt_tokens", "input_tokens":
		n.seen, n.input = true, true
		n.beside = key == "input_tokens"
		return n.count(c, &n.Input)
	case "completion_tokens", "output_tokens":
		n.seen = true
		return n.count(c, &n.Output)
	case "cache_read_input_tokens":
		n.separate = true
		return n.optional(c, &n.Cached)
	case "cache_creation_input_tokens":
		n.separate = true
		return n.optional(c, &n.CacheWrite)
	case "prompt_tokens_details", "input_tokens_details", "completion_tokens_details", "output_tokens_details":
		if c.peek() == '{' {
			return c.object(func(key []byte) error { return n.detail(c, string(key)) })
		}
	}
	return c.value()
}

func (n *usageCounts) detail(c *cursor, key string) error {
	switch key {
	case "cached_tokens":
		return n.optional(c, &n.Cached)
	case "cache_write_tokens":
		return n.optional(c, &n.CacheWrite)
	case "reasoning_tokens":
		return n.optional(c, &n.Reasoning)
	}
	return c.value()
}

func (n *usageCounts) optional(c *cursor, into *int64) error {
	if c.peek() == 'n' {
		return c.value()
	}
	return n.count(c, into)
}

func (n *usageCounts) count(c *cursor, into *int64) error {
	start := c.pos
	if err := c.value(); err != nil {
		return err
	}
	inner := cursor{data: c.data[:c.pos], pos: start}
	v, err := inner.integer()
	if err != nil || v < 0 || v > maxTokens || c.data[start] == 'n' {
		n.ok = false
		return nil
	}
	*into = v
	return nil
}

// A Meter watches one event stream, of any API, and knows at its end what it billed and what it said.
type Meter struct {
	Reply
	Chunks    int    // chunks that carried text
	TextBytes int64  // bytes of text and of tool arguments, of all choices
	Ended     bool   // the end mark was seen
	text      []byte // the first choice's text, at most KeepText bytes
	KeepText  int
	Cut       bool // text is not the whole text
}

// Text returns what the first choice said, as far as it was kept.
func (m *Meter) Text() string { return string(m.text) }

var (
	usageKey = []byte(`"usage"`)
	errorKey = []byte(`"error"`)
)

// See takes the data of one event.
func (m *Meter) See(data []byte) {
	if Done(data) {
		m.Ended = true
		return
	}
	if m.Ended || m.quick(data) {
		return
	}
	chunk, ok := ParseReply(data)
	if !ok {
		return
	}
	switch { // the last usage counts; they are never added up
	case chunk.Kind == "message_start" && chunk.Usage == (cost.Usage{}): // nothing is known yet: a translated stream begins so
	case chunk.Billed && chunk.partial && m.Billed:
		m.Usage.Output, m.Usage.Reasoning = chunk.Usage.Output, chunk.Usage.Reasoning
	case chunk.Billed:
		m.Usage, m.Billed = chunk.Usage, true
	case bytes.Contains(data, usageKey) && usageIsObject(data):
		m.Billed = false
	}
	if m.Model == "" {
		m.Model = chunk.Model
	}
	if chunk.Finish != "" && chunk.Finish != "in_progress" {
		m.Finish = chunk.Finish
	}
	m.Refusal = m.Refusal || chunk.Refusal
	m.Error = m.Error || chunk.Error
	switch chunk.Kind {
	case "response.completed", "response.incomplete", "response.failed", "message_stop":
		m.Ended = true
	case "", "response.output_text.delta", "response.refusal.delta", "content_block_delta", "response.function_call_arguments.delta":
		m.addText(chunk.Content)
	}
}

var (
	contentDelta = []byte(`"delta":{"content":"`)
	nullFinish   = []byte(`"finish_reason":null`)
)

// quick handles the chunk that most of a stream consists of: one choice, some text, no finish, no usage, written the way
// the public API writes it. It reports false for anything else.
func (m *Meter) quick(data []byte) bool {
	i := bytes.Index(data, contentDelta)
	if i < 0 || m.Model == "" {
		return false
	}
	text := data[i+len(contentDelta):]
	j := bytes.IndexByte(text, '"')
	if j < 0 || bytes.IndexByte(text[:j], '\\') >= 0 {
		return false
	}
	rest := text[j+1:]
	if !bytes.HasPrefix(rest, []byte("}")) || !bytes.Contains(rest, nullFinish) || bytes.Contains(rest, contentDelta) ||
		usageIsObject(data) || bytes.Contains(data, errorKey) {
		return false
	}
	m.addText(string(text[:j]))
	return true
}

// usageIsObject reports whether some "usage" member of data is not null.
func usageIsObject(data []byte) bool {
	for {
		i := bytes.Index(data, usageKey)
		if i < 0 {
			return false
		}
		data = bytes.TrimLeft(data[i+len(usageKey):], " :")
		if !bytes.HasPrefix(data, []byte("null")) {
			return true
		}
	}
}

func (m *Meter) addText(s string) {
	if s == "" {
		return
	}
	m.Chunks++
	m.TextBytes += int64(len(s))
	if len(m.text)+len(s) > m.KeepText {
		m.Cut = true
		return
	}
	m.text = append(m.text, s...)
}
