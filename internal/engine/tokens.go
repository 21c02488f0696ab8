package engine

import (
	"strings"

	"github.com/tiktoken-go/tokenizer"
)

// maxCounted bounds the text whose tokens are really counted; what is longer is counted in part and scaled up, because
// byte-pair encoding of hostile text takes quadratic time.
const maxCounted = 32 << 10

// CountTokens counts a text's tokens the way the model's provider does. known is false for models whose tokenizer is not
// public; the count is then a rule of thumb, four bytes a token. The tables take some 12 MB of memory from the first call on.
func CountTokens(model, text string) (n int64, known bool) {
	if text == "" {
		return 0, true
	}
	encoding := encodingOf(model)
	if encoding == "" {
		return int64(len(text)+3) / 4, false
	}
	codec, err := tokenizer.Get(encoding)
	if err != nil {
		return int64(len(text)+3) / 4, false
	}
	part := text[:min(len(text), maxCounted)]
	count, err := codec.Count(part)
	if err != nil {
		return int64(len(text)+3) / 4, false
	}
	return int64(float64(count) * float64(len(text)) / float64(len(part))), true
}

// encodingOf names the public tokenizer of an OpenAI model, "" for any other model.
func encodingOf(model string) tokenizer.Encoding {
	model = model[strings.LastIndexByte(model, '/')+1:] // openai/gpt-4o, as aggregators write it
	for _, prefix := range []string{"gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "chatgpt-4o", "o1", "o3", "o4", "gpt-oss"} {
		if strings.HasPrefix(model, prefix) {
			return tokenizer.O200kBase
		}
	}
	for _, prefix := range []string{"gpt-4", "gpt-3.5", "text-embedding-"} {
		if strings.HasPrefix(model, prefix) {
			return tokenizer.Cl100kBase
		}
	}
	return ""
}

// MaxOutput is the most tokens that a model writes in one answer, where its provider has published it; 0: unknown.
func MaxOutput(model string) int64 {
	model = model[strings.LastIndexByte(model, '/')+1:]
	for _, known := range []struct {
		prefix string
		tokens int64
	}{
		{"gpt-4o", 16_384}, {"chatgpt-4o", 16_384}, {"gpt-4.1", 32_768}, {"gpt-4.5", 16_384}, {"gpt-5", 128_000},
		{"o1", 100_000}, {"o3", 100_000}, {"o4", 100_000}, {"gpt-4-turbo", 4_096}, {"gpt-4", 8_192}, {"gpt-3.5", 4_096},
	} {
		if strings.HasPrefix(model, known.prefix) {
			return known.tokens
		}
	}
	return 0
}
