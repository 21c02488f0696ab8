package openai

import (
	"encoding/json"
	"errors"
)

// A Translation is one request in the words of another API, with what puts the answer back into the app's. Chats stand between
// responses and Anthropic's messages: those are translated twice.
type Translation struct {
	API  API // that the request is written for now
	Body []byte

	whole  []func(body []byte) ([]byte, error)
	failed []func(status int, body []byte) []byte
	stream []func() events
}

// events puts the events of one API's stream into the words of another.
type events interface {
	Event(dst, data []byte) []byte // appends what one event becomes, often nothing
	End(dst []byte) []byte         // appends what is still to be said when the stream ends without a cut
}

// Translate puts a request from one API's words into another's. created is the time in Unix seconds, usage says that a stream is
// to end with usage. What the other API has no word for is an *Error with status 400 that names the member.
func Translate(from, to API, body []byte, created int64, usage bool) (*Translation, error) {
	t := &Translation{API: from, Body: body}
	steps := map[[2]API][]func(int64, bool) error{
		{Chat, Messages}:      {t.chatToMessages},
		{Messages, Chat}:      {t.messagesToChat},
		{Responses, Chat}:     {t.responsesToChat},
		{Responses, Messages}: {t.responsesToChat, t.chatToMessages},
	}[[2]API{from, to}]
	if steps == nil {
		return nil, BadRequest("", "The provider of this model has no API for such a request: "+string(from)+" cannot be translated into "+string(to)+".")
	}
	for i, step := range steps {
		if err := step(created, usage || i > 0); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *Translation) chatToMessages(created int64, usage bool) error {
	body, err := ChatToMessages(t.Body)
	if err != nil {
		return err
	}
	t.then(Messages, body, func(body []byte) ([]byte, error) { return MessageToChat(body, created) }, MessageErrorToChat,
		func() events { return &MessageStream{Created: created, IncludeUsage: usage} })
	return nil
}

func (t *Translation) messagesToChat(int64, bool) error {
	body, err := MessagesToChat(t.Body)
	if err != nil {
		return err
	}
	t.then(Chat, body, ChatToMessage, ChatErrorToMessage, func() events { return &chatToMessageStream{} })
	return nil
}

func (t *Translation) responsesToChat(created int64, _ bool) error {
	body, echo, err := ResponsesToChat(t.Body)
	if err != nil {
		return err
	}
	frame := &responseFrame{created: created, echo: echo}
	t.then(Chat, body, frame.whole, func(_ int, body []byte) []byte { return body }, func() events { return &chatToResponseStream{frame: frame} })
	return nil
}

func (t *Translation) then(to API, body []byte, whole func([]byte) ([]byte, error), failed func(int, []byte) []byte, stream func() events) {
	t.API, t.Body = to, body
	t.whole, t.failed, t.stream = append(t.whole, whole), append(t.failed, failed), append(t.stream, stream)
}

// Reply puts a whole answer with status 200 into the app's words.
func (t *Translation) Reply(body []byte) (_ []byte, err error) {
	for i := len(t.whole) - 1; i >= 0 && err == nil; i-- {
		body, err = t.whole[i](body)
	}
	return body, err
}

// Failure puts an error's body into the app's words; one that is not in the upstream's words stays as it is.
func (t *Translation) Failure(status int, body []byte) []byte {
	for i := len(t.failed) - 1; i >= 0; i-- {
		body = t.failed[i](status, body)
	}
	return body
}

// Stream returns what puts the bytes of a stream into the app's words.
func (t *Translation) Stream() *StreamTranslation {
	s := &StreamTranslation{}
	for i := len(t.stream) - 1; i >= 0; i-- {
		s.steps = append(s.steps, &step{split: Splitter{Max: maxTranslatedEvent}, events: t.stream[i]()})
	}
	return s
}

// maxTranslatedEvent bounds one event of a stream that is translated.
const maxTranslatedEvent = 4 << 20

// A StreamTranslation is one stream on its way through a Translation.
type StreamTranslation struct {
	steps []*step
}

type step struct {
	split  Splitter
	events events
	out    []byte
}

// Push takes bytes as they come and appends what they become.
func (s *StreamTranslation) Push(dst, p []byte) []byte {
	for _, one := range s.steps {
		one.out = one.out[:0]
		one.split.Push(p, func(e Event) { one.out = one.events.Event(one.out, e.Data) })
		p = one.out
	}
	return append(dst, p...)
}

// End appends what is still to be said at the end of a stream that the upstream ended itself.
func (s *StreamTranslation) End(dst []byte) []byte {
	var p []byte
	for _, one := range s.steps {
		one.out = one.out[:0]
		see := func(e Event) { one.out = one.events.Event(one.out, e.Data) }
		one.split.Push(p, see)
		one.split.Rest(see)
		one.out = one.events.End(one.out)
		p = one.out
	}
	return append(dst, p...)
}

// A chatReply is a chat completion, or one chunk of a stream of them, as far as it is translated.
type chatReply struct {
	ID, Model string
	Choices   []struct {
		Message struct {
			Content, Refusal *string
			ToolCalls        []chatCall `json:"tool_calls"`
		}
		Delta struct {
			Content, Refusal *string
			ToolCalls        []chatCall `json:"tool_calls"`
		}
		Finish *string `json:"finish_reason"`
	}
	Usage *chatUsage
	Error *struct {
		Type, Message string
		Code          any
	}
}

type chatCall struct {
	Index    int
	ID       string
	Function struct{ Name, Arguments string }
}

type chatUsage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Details    struct {
		Cached     int64 `json:"cached_tokens"`
		CacheWrite int64 `json:"cache_write_tokens"`
	} `json:"prompt_tokens_details"`
	Output struct {
		Reasoning int64 `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
	CacheWrite int64 `json:"cache_creation_input_tokens"`
}

// written are the tokens that went into the provider's cache, under whichever name.
func (u *chatUsage) written() int64 { return max(u.Details.CacheWrite, u.CacheWrite) }

var errNoChat = errors.New("openai: the reply is no chat completion")

func readChat(body []byte) (*chatReply, error) {
	r := &chatReply{}
	if err := json.Unmarshal(body, r); err != nil || len(r.Choices) == 0 {
		return nil, errNoChat
	}
	return r, nil
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("openai: what was read does not encode: " + err.Error()) // texts, numbers and JSON that was parsed always do
	}
	return text
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
