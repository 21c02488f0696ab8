package engine

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"occam/internal/openai"
)

// Kinds of upstream servers.
const (
	OpenAI    = "openai"    // any OpenAI-compatible server
	Azure     = "azure"     // Azure OpenAI: the key stands in api-key; base_url ends with /openai/v1
	Anthropic = "anthropic" // Anthropic's messages; chats are translated
)

// anthropicVersion is the version of the API that the translation speaks.
const anthropicVersion = "2023-06-01"

// prepare puts a call into the words of the upstream's API.
func (u *Upstream) prepare(c *Call) (*Call, error) {
	if u.kind != Anthropic || c.API == openai.Messages {
		return c, nil
	}
	if c.API != openai.Chat {
		return nil, &Failure{Upstream: u.Name, Kind: Unsupported, Err: fmt.Errorf("%s is not translated for Anthropic", c.API)}
	}
	body, err := openai.ChatToMessages(c.Body)
	if err != nil {
		return nil, &Failure{Upstream: u.Name, Kind: Unsupported, Err: err}
	}
	translated := *c
	translated.Path, translated.Body = openai.Messages.Path(), body
	return &translated, nil
}

// translate puts an Anthropic reply into the words of a chat.
func (u *Upstream) translate(c *Call, r *Reply) error {
	if u.kind != Anthropic || c.API == openai.Messages {
		return nil
	}
	r.Length = -1
	if r.Status == http.StatusOK && strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		r.Body = &translatedStream{ReadCloser: r.Body, stream: openai.MessageStream{Created: time.Now().Unix(), IncludeUsage: c.Usage}}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxTranslated))
	if err != nil {
		return err
	}
	if r.Status == http.StatusOK {
		if body, err = openai.MessageToChat(body, time.Now().Unix()); err != nil {
			return &Failure{Upstream: u.Name, Kind: Rubbish, Err: err}
		}
	} else {
		body = openai.MessageErrorToChat(r.Status, body)
	}
	r.Length = int64(len(body))
	r.Body = &readBody{Reader: bytes.NewReader(body), Closer: r.Body}
	return nil
}

// maxTranslated bounds a reply that is translated as a whole.
const maxTranslated = 32 << 20

// A readBody is a body that was read to its end.
type readBody struct {
	io.Reader
	io.Closer
}

// A translatedStream turns Anthropic's events into a chat's while they are read.
type translatedStream struct {
	io.ReadCloser
	split  openai.Splitter
	stream openai.MessageStream
	out    []byte
	err    error
}

func (t *translatedStream) Read(p []byte) (int, error) {
	var buf [8 << 10]byte
	for len(t.out) == 0 && t.err == nil {
		var n int
		n, t.err = t.ReadCloser.Read(buf[:])
		t.split.Push(buf[:n], func(e openai.Event) { t.out = t.stream.Event(t.out, e.Data) })
	}
	if len(t.out) == 0 {
		return 0, t.err
	}
	n := copy(p, t.out)
	t.out = append(t.out[:0], t.out[n:]...)
	return n, nil
}
