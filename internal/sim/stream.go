package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// A streamer sends one reply as server-sent events, token by token, and bills each token as it is made.
type streamer struct {
	p     *Provider
	w     http.ResponseWriter
	call  *call
	reply *reply
	line  *chargeLine
	dice  *rand.Rand
	usage bool // the caller asked for a usage chunk

	events int  // sent so far, without the comment lines
	dead   bool // the connection is gone or cut
}

// run reports whether the whole stream was sent.
func (s *streamer) run(ctx context.Context) bool {
	l := s.p.options.Latency
	if !wait(ctx, l.draw(s.dice, l.FirstToken)) {
		return false
	}
	s.w.Header().Set("Content-Type", s.call.fault.contentType("text/event-stream; charset=utf-8"))
	s.w.Header().Set("Cache-Control", "no-cache")
	s.w.WriteHeader(http.StatusOK)
	s.flush()
	if s.call.fault.Kind == ResetAfterHeaders {
		s.cut()
		return false
	}
	s.call.dialect.stream(ctx, s)
	return !s.dead && ctx.Err() == nil
}

// streamChat sends the events of a chat completion.
func streamChat(ctx context.Context, s *streamer) {
	for i := range s.reply.choices {
		s.choice(ctx, i)
	}
	if !s.dead {
		s.finish(ctx)
	}
}

// tokens makes, bills and sends a choice's tokens one by one; it reports whether it came to the end.
func (s *streamer) tokens(ctx context.Context, c *choice, send func(token string)) bool {
	if c.tool != nil {
		s.line.addCompletion(toolNameTokens)
	}
	l := s.p.options.Latency
	for _, token := range c.tokens {
		if s.dead || !wait(ctx, l.draw(s.dice, l.PerToken)) {
			s.dead = true
			return false
		}
		s.line.addCompletion(1)
		send(token)
	}
	return !s.dead
}

// choice streams one choice: role, tokens, finish reason.
func (s *streamer) choice(ctx context.Context, index int) {
	c := &s.reply.choices[index]
	first := object{{"role", "assistant"}, {"content", ""}, {"refusal", nil}}
	if c.tool != nil {
		head := object{{"index", 0}, {"id", c.tool.id}, {"type", "function"}, {"function", object{{"name", c.tool.name}, {"arguments", ""}}}}
		first = object{{"role", "assistant"}, {"content", nil}, {"tool_calls", []any{head}}, {"refusal", nil}}
	}
	s.delta(ctx, index, first, nil, nil)
	whole := s.tokens(ctx, c, func(token string) {
		d := object{{"content", token}}
		if c.tool != nil {
			d = object{{"tool_calls", []any{object{{"index", 0}, {"function", object{{"arguments", token}}}}}}}
		}
		s.delta(ctx, index, d, nil, s.reply.logprobsOf([]string{token}, s.reply.choices[index].unsure))
	})
	if whole {
		s.delta(ctx, index, object{}, c.finish, nil)
	}
}

// finish sends the usage chunk, if it was asked for, and the end mark.
func (s *streamer) finish(ctx context.Context) {
	fault := s.call.fault.Kind
	if s.usage && fault != UsageMissing {
		chunk := s.chunk().with("choices", []any{}).with("usage", s.reply.usage(s.reply.completion()))
		s.call.fault.spoilUsage(&chunk)
		s.send(ctx, chunk)
		if fault == UsageTwice {
			s.send(ctx, chunk)
		}
	}
	switch fault {
	case NoDone:
		return
	case ErrorEvent:
		s.raw(ctx, "data: "+string(serverError("The server had an error while processing your request.").body())+"\n\n")
		return
	}
	s.raw(ctx, "data: [DONE]\n\n")
	if fault == DataAfterDone {
		s.raw(ctx, "data: {\"id\":\"late\",\"object\":\"chat.completion.chunk\",\"choices\":[]}\n\n")
	}
}

func (s *streamer) chunk() object {
	return object{{"id", s.reply.id}, {"object", "chat.completion.chunk"}, {"created", s.reply.created}, {"model", s.reply.model},
		{"service_tier", "default"}, {"system_fingerprint", systemFingerprint}}
}

func (s *streamer) delta(ctx context.Context, index int, delta object, finish, logprobs any) {
	if s.dead {
		return
	}
	chunk := s.chunk().with("choices", []any{object{{"index", index}, {"delta", delta}, {"logprobs", logprobs}, {"finish_reason", finish}}})
	if s.usage {
		chunk.set("usage", nil)
	}
	if s.call.fault.Kind == UsageInContent && finish != nil {
		chunk.set("usage", s.reply.usage(s.reply.completion()))
	}
	s.send(ctx, chunk)
}

func (s *streamer) send(ctx context.Context, chunk object) {
	body := encode(chunk)
	end := "\n\n"
	switch s.call.fault.Kind {
	case CRLF:
		end = "\r\n\r\n"
	case Comments:
		s.raw(ctx, ": keep-alive\n\n")
	case DataWithoutSpace:
		s.raw(ctx, "data:"+string(body)+end)
		return
	case ManyDataLines:
		// one event in two data lines, which the reader joins with a line feed: legal between JSON tokens
		s.raw(ctx, "data: "+strings.Replace(string(body), ",", ",\ndata: ", 1)+end)
		return
	}
	s.raw(ctx, "data: "+string(body)+end)
}

// raw writes one event, or what a fault makes of it.
func (s *streamer) raw(ctx context.Context, event string) {
	if s.dead {
		return
	}
	if s.events == s.call.fault.After && s.call.fault.midStream() {
		s.fail(ctx, event)
	}
	s.events++
	if s.dead {
		return
	}
	if s.call.fault.Kind == Trickle {
		s.trickle(ctx, event)
		return
	}
	if _, err := s.w.Write([]byte(event)); err != nil || ctx.Err() != nil {
		s.dead = true
		return
	}
	s.flush()
}

// fail does what the fault says when its event is due. Unless it ends the stream, the event follows.
func (s *streamer) fail(ctx context.Context, event string) {
	switch s.call.fault.Kind {
	case Stall:
		s.p.hang(ctx, s.call.fault.Delay)
		s.dead = s.call.fault.Delay == 0
	case ResetMidBody:
		s.cut()
	case EndEarly:
		s.dead = true
	case CutLine:
		_, _ = s.w.Write([]byte(event[:len(event)/2]))
		s.flush()
		s.dead = true
	case GarbageEvent:
		_, _ = s.w.Write([]byte("data: {\"id\": not json\n\n"))
	case UnknownEvent:
		_, _ = s.w.Write([]byte("event: ping\ndata: {\"type\":\"ping\"}\n\n"))
	case LongLine:
		_, _ = fmt.Fprintf(s.w, "data: {\"id\":\"%s\",\"object\":\"chat.completion.chunk\",\"choices\":[]}\n\n", strings.Repeat("x", longLineBytes))
	}
}

// cut resets the connection.
func (s *streamer) cut() {
	s.dead = true
	reset(s.w)
}

func (s *streamer) trickle(ctx context.Context, event string) {
	for i := range len(event) {
		if !wait(ctx, s.call.fault.Delay) {
			s.dead = true
			return
		}
		if _, err := s.w.Write([]byte{event[i]}); err != nil {
			s.dead = true
			return
		}
		s.flush()
	}
}

func (s *streamer) flush() { _ = http.NewResponseController(s.w).Flush() }
