package sim

import (
	"encoding/json"
	"hash/fnv"
	"strings"
	"sync"

	"github.com/tiktoken-go/tokenizer"
)

// Tokens that a message costs beyond its text, and those that open the answer.
// Source: OpenAI Cookbook, "How to count tokens with tiktoken".
const (
	tokensPerMessage = 3
	tokensPerName    = 1
	tokensPerReply   = 3
)

// A tokenCounter counts as the o200k models do. It remembers the counts of long texts, because system prompts and schemas
// come again with every request.
type tokenCounter struct {
	codec tokenizer.Codec

	mu    sync.Mutex
	known map[uint64]int64
}

const (
	rememberBytes = 256
	rememberMax   = 4096
)

func (c *tokenCounter) count(text string) int64 {
	if len(text) < rememberBytes {
		return c.encode(text)
	}
	key := hash(uint64(len(text)), []byte(text))
	c.mu.Lock()
	n, ok := c.known[key]
	c.mu.Unlock()
	if ok {
		return n
	}
	n = c.encode(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= rememberMax {
		c.known = map[uint64]int64{}
	}
	c.known[key] = n
	return n
}

func (c *tokenCounter) encode(text string) int64 {
	n, err := c.codec.Count(text)
	if err != nil {
		return int64(len(text)+3) / 4 // the codec's pattern gave up: a rough count is still a count
	}
	return int64(n)
}

// split cuts text into its tokens, as a stream delivers them. Tokens that end inside a character are joined with the next.
func (c *tokenCounter) split(text string) []string {
	_, tokens, err := c.codec.Encode(text)
	if err != nil || strings.Join(tokens, "") != text { // the codec loses some control characters
		tokens = strings.SplitAfter(text, " ")
	}
	whole := tokens[:0:0]
	pending := ""
	for _, t := range tokens {
		pending += t
		if validEnd(pending) {
			whole, pending = append(whole, pending), ""
		}
	}
	if pending != "" {
		whole = append(whole, pending)
	}
	return whole
}

// prompt counts a chat request's input: its messages, and the schemas that are put into the prompt with them.
func (c *tokenCounter) prompt(r *chatRequest) int64 {
	total := int64(tokensPerReply)
	for _, m := range r.Messages {
		total += tokensPerMessage + c.count(m.Role) + c.count(m.text())
		if m.Name != "" {
			total += tokensPerName + c.count(m.Name)
		}
		for _, t := range m.ToolCalls {
			total += c.count(string(t))
		}
		total += imageTokens * int64(m.images())
	}
	for _, extra := range []json.RawMessage{r.ResponseFormat.JSONSchema.Schema, r.Tools} {
		if len(extra) > 0 {
			total += c.count(string(extra))
		}
	}
	return total
}

// imageTokens is what a small image costs on GPT-4o: 85 base tokens and one tile of 170.
const imageTokens = 255

// A prefixCache decides how much of a prompt is billed at the cached rate: whole blocks of 128 tokens of a prefix that was
// seen before, from 1,024 tokens on, as OpenAI documents. The prefix is everything but the last message.
type prefixCache struct {
	mu   sync.Mutex
	seen map[uint64]bool
}

func (c *prefixCache) cached(r *chatRequest, counter *tokenCounter, prompt int64) int64 {
	last := len(r.Messages) - 1
	tail := counter.count(r.Messages[last].text()) + tokensPerMessage + tokensPerReply
	prefix := (prompt - tail) / 128 * 128
	if prefix < 1024 {
		return 0
	}
	key, _ := json.Marshal([]any{r.Model, r.Messages[:last], r.Tools, r.ResponseFormat})
	h := hash(0, key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[h] {
		return prefix
	}
	if c.seen == nil || len(c.seen) >= rememberMax {
		c.seen = map[uint64]bool{}
	}
	c.seen[h] = true
	return 0
}

// hash mixes a seed and bytes into one number.
func hash(seed uint64, data []byte) uint64 {
	h := fnv.New64a()
	var b [8]byte
	for i := range b {
		b[i] = byte(seed >> (8 * i))
	}
	_, _ = h.Write(b[:])
	_, _ = h.Write(data)
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}
