package engine

import (
	"bytes"
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

// Native is the API in which the upstream answers a request that is asked in another one.
func (u *Upstream) Native(asked openai.API) openai.API {
	switch {
	case u.kind == Anthropic && asked != "":
		return openai.Messages
	case u.kind != Anthropic && asked == openai.Messages && !u.messages:
		return openai.Chat
	}
	return asked
}

// Translate puts the body of a request into the upstream's words; nil where it is in them. The error is a *Failure: the upstream has
// no word for something that is asked.
func (u *Upstream) Translate(asked openai.API, body []byte) (*openai.Translation, error) {
	native := u.Native(asked)
	if native == asked {
		return nil, nil
	}
	t, err := openai.Translate(asked, native, body, time.Now().Unix(), true)
	if err != nil {
		return nil, &Failure{Upstream: u.Name, Kind: Unsupported, Err: err}
	}
	return t, nil
}

// prepare puts a call into the words of the upstream's API. t is nil where both sides speak the same.
func (u *Upstream) prepare(c *Call) (prepared *Call, t *openai.Translation, err error) {
	if t, err = u.Translate(c.API, c.Body); t == nil {
		return c, nil, err
	}
	translated := *c
	translated.API, translated.Path, translated.Body = t.API, t.API.Path(), t.Body
	translated.Header = c.Header.Clone()
	for _, name := range foreign {
		translated.Header.Del(name) // these speak of the app's API
	}
	return &translated, t, nil
}

var foreign = []string{"Openai-Beta", "Anthropic-Beta", "Anthropic-Version"}

// translate puts a reply back into the app's words.
func (u *Upstream) translate(t *openai.Translation, r *Reply) error {
	r.Length, r.Usage = -1, true
	if r.Status == http.StatusOK && strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		r.Body = &translatedStream{ReadCloser: r.Body, stream: t.Stream()}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxTranslated))
	if err != nil {
		return err
	}
	if r.Status == http.StatusOK {
		if body, err = t.Reply(body); err != nil {
			return &Failure{Upstream: u.Name, Kind: Rubbish, Err: err}
		}
	} else {
		body = t.Failure(r.Status, body)
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

// A translatedStream turns the events of one API into those of another while they are read.
type translatedStream struct {
	io.ReadCloser
	stream *openai.StreamTranslation
	out    []byte
	err    error
}

func (t *translatedStream) Read(p []byte) (int, error) {
	var buf [8 << 10]byte
	for len(t.out) == 0 && t.err == nil {
		var n int
		n, t.err = t.ReadCloser.Read(buf[:])
		t.out = t.stream.Push(t.out, buf[:n])
		if t.err == io.EOF {
			t.out = t.stream.End(t.out)
		}
	}
	if len(t.out) == 0 {
		return 0, t.err
	}
	n := copy(p, t.out)
	t.out = append(t.out[:0], t.out[n:]...)
	return n, nil
}
