package openai

import (
	"bytes"
	"math"
	"strconv"

	"occam/internal/cost"
)

// maxTokens is the largest count that is believed: no model reads or writes more in one request.
const maxTokens = 100_000_000

// A Reply is what the gateway needs to know of a chat completion, a stream's chunk, a response, an embedding or an
// Anthropic message: what it bills and, for the first choice, what it says.
type Reply struct {
	Model   string
	Usage   cost.Usage
	Billed  bool    // Usage was there and can be true
	Content string  // text of the first choice
	Refusal bool    // the model refused
	Finish  string  // finish_reason of the first choice
	Choices int     // how many choices stand in it
	Error   bool    // it holds an error object
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
	switch {
	case string(key) == "usage" && c.peek() == '{':
		r.Usage, r.Billed, err = readUsage(c)
		return err
	case string(key) == "model" && c.peek() == '"':
		r.Model, _, err = c.str()
		return err
	case string(key) == "choices" && c.peek() == '[':
		return c.array(func() error {
			r.Choices++
			if r.Choices > 1 || c.peek() != '{' {
				return c.value()
			}
			return c.object(func(key []byte) error { return r.choice(c, key) })
		})
	case string(key) == "error" && c.peek() != 'n':
		r.Error = true
	}
	return c.value()
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

// readUsage reads a usage object in the shape of chat completions (prompt_tokens), of responses (input_tokens) or of
// Anthropic messages (input_tokens without the cached ones). known is false where it holds no believable counts.
func readUsage(c *cursor) (u cost.Usage, known bool, err error) {
	n := usageCounts{ok: true}
	err = c.object(func(key []byte) error { return n.member(c, string(key)) })
	if err != nil || !n.ok || !n.seen {
		return cost.Usage{}, false, err
	}
	u = n.Usage
	if n.separate && n.beside {
		u.Input += u.Cached + u.CacheWrite
	}
	return u, u.Check() == nil, nil
}

type usageCounts struct {
	cost.Usage
	seen     bool // a main count was there
	ok       bool // no count was malformed, negative or beyond belief
	separate bool // Anthropic's names for cached tokens were there
	beside   bool // the input was called input_tokens: with those names, cached tokens stand beside it, not in it
}

func (n *usageCounts) member(c *cursor, key string) error {
	switch key {
	case "prompt_tokens", "input_tokens":
		n.seen = true
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

// A Meter watches one stream of chat completion chunks and knows at its end what it billed and what it said.
type Meter struct {
	Reply
	Chunks     int   // chunks that carried text
	TextBytes  int64 // bytes of text and of tool arguments, of all choices
	Ended      bool  // the end mark was seen
	FirstError string
	text       []byte // the first choice's text, at most KeepText bytes
	KeepText   int
	Cut        bool // text is not the whole text
}

// Text returns what the first choice said, as far as it was kept.
func (m *Meter) Text() string { return string(m.text) }

var (
	usageKey   = []byte(`"usage"`)
	choicesKey = []byte(`"choices"`)
	errorKey   = []byte(`"error"`)
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
	if chunk.Billed {
		m.Usage, m.Billed = chunk.Usage, true // the last one counts; they are never added up
	} else if bytes.Contains(data, usageKey) && usageIsObject(data) {
		m.Billed = false
	}
	if m.Model == "" {
		m.Model = chunk.Model
	}
	if chunk.Finish != "" {
		m.Finish = chunk.Finish
	}
	m.Refusal = m.Refusal || chunk.Refusal
	m.Error = m.Error || chunk.Error
	m.addText(chunk.Content)
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
