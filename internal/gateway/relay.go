package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"occam/internal/engine"
	"occam/internal/openai"
)

// relay sends the request to a model and passes its answer on as it comes.
func (x *exchange) relay(c *call) {
	a, reply, refused := x.send(c)
	if refused != nil {
		x.refuse(refused)
		return
	}
	defer reply.Body.Close()
	if reply.Status == http.StatusOK && isEventStream(reply.Header) {
		x.stream(a, reply, (c.edit.Usage || reply.Usage) && !x.request.IncludeUsage)
		return
	}
	x.whole(a, reply)
}

func isEventStream(h http.Header) bool {
	return strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "text/event-stream")
}

// whole passes on a reply that is not a stream: read to its end, recorded, then written.
func (x *exchange) whole(a *paid, reply *engine.Reply) {
	body, err := readAll(reply, x.snap.Limits.ReplyBytes, x.hold)
	if err != nil {
		a.lost(err)
		x.refuse(x.failed(err))
		return
	}
	parsed, ok := openai.ParseReply(body)
	switch {
	case reply.Status >= 400:
		a.unbilled(reply.Status)
		x.pass(a, reply, errorBody(reply, x.api, a.Provider, body, ok))
		return
	case !ok && reply.Header.Get("Content-Encoding") == "":
		a.lost(errNotJSON)
		x.refuse(x.failed(&engine.Failure{Upstream: a.Provider, Kind: engine.Rubbish,
			Err: fmt.Errorf("status %d with %d bytes: %w", reply.Status, len(body), errNotJSON)}))
		return
	}
	a.Answered = true
	a.account(&parsed, true, 0, parsed.Content, int64(len(parsed.Content)))
	x.learn(a, parsed.Model, parsed.Content) // before the app can refer to the request, as feedback does
	x.pass(a, reply, body)
}

// pass writes an upstream's reply as the app's answer. An app that went away was billed all the same, and that is recorded.
func (x *exchange) pass(a *paid, reply *engine.Reply, body []byte) {
	copyHeaders(x.w.Header(), reply.Header)
	x.headers(&a.Attempt)
	x.warn(a)
	x.w.Header()["X-Occam-Cost-Usd"] = []string{x.cost()}
	x.wrote = true
	x.deadline()
	x.w.WriteHeader(reply.Status)
	_, _ = x.w.Write(body)
	x.done(&a.Attempt)
}

// errorBody is an upstream's error as it came, or in the API's shape where it was no JSON.
func errorBody(reply *engine.Reply, api openai.API, provider string, body []byte, isJSON bool) []byte {
	if isJSON {
		return body
	}
	reply.Header.Set("Content-Type", "application/json")
	reply.Header.Del("Content-Encoding")
	e := openai.Error{Status: reply.Status, Type: "api_error", Code: "upstream_error",
		Message: fmt.Sprintf("The provider %q answered with status %d and no JSON body.", provider, reply.Status)}
	return e.Append(nil, api)
}

// deadline gives the app's connection until the limit to take what is written next. A stream has many pieces: their deadline is put off
// when a sixteenth of it is over.
func (x *exchange) deadline() {
	now := time.Now()
	if now.Before(x.stands) {
		return
	}
	x.stands = now.Add(x.snap.Limits.Write / 16)
	_ = x.control().SetWriteDeadline(now.Add(x.snap.Limits.Write)) // not every writer has one
}

const (
	keepText  = 16 << 10 // bytes of a stream's text that are kept, to learn from and to count tokens
	drainTime = time.Minute
)

// A stream begins with a small buffer, which is enough for tokens that come one by one, and gets a large one when a read fills it.
var (
	buffers      = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}
	largeBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
)

// A pump passes an event stream on as it comes, line by line, and knows what it says.
type pump struct {
	x     *exchange
	a     *paid
	reply *engine.Reply
	meter openai.Meter
	split openai.Splitter
	strip *openai.Stripper // set when the gateway asked for usage that the app did not ask for: it is taken out again
	out   []byte           // what is left after stripping
	large *[]byte          // of largeBuffers, where the stream needs one
	gone  bool             // the app went away
}

// stream passes on an event stream. The end mark goes out only when the outcome is recorded.
func (x *exchange) stream(a *paid, reply *engine.Reply, strip bool) {
	copyHeaders(x.w.Header(), reply.Header)
	x.headers(&a.Attempt)
	x.warn(a)
	a.Answered = true
	p := &pump{x: x, a: a, reply: reply, meter: openai.Meter{KeepText: keepText}}
	if strip {
		p.strip = new(openai.Stripper)
	}
	buffer := buffers.Get().(*[]byte)
	defer func() {
		buffers.Put(buffer)
		if p.large != nil {
			largeBuffers.Put(p.large)
		}
	}()
	rest, err := p.run(*buffer)
	switch {
	case p.gone:
		p.close(p.meter.Ended || x.snap.Limits.Drain && err == io.EOF && p.meter.Finish != "")
		p.learn()
	case err == nil || err == io.EOF:
		p.close(p.meter.Ended || p.meter.Finish != "")
		p.learn()
		p.write(rest)
		reply.Finish()
	default:
		p.close(false)
		p.cut(err)
	}
	x.done(&a.Attempt)
}

// learn hands on what the whole stream said.
func (p *pump) learn() {
	if p.meter.Ended && !p.meter.Cut {
		p.x.learn(p.a, p.meter.Model, p.meter.Text())
	}
}

// run copies until the end mark, which it returns unwritten with what follows it, or until an error: io.EOF where the
// upstream ended the stream itself.
func (p *pump) run(buf []byte) (rest []byte, err error) {
	held := 0 // bytes at the front of buf that wait for the end of their line
	for {
		n, err := p.reply.Body.Read(buf[held:])
		end := -1
		p.split.Push(buf[held:held+n], func(e openai.Event) {
			p.meter.See(e.Data)
			if p.meter.Ended && end < 0 {
				end = held + max(e.At, -held)
			}
		})
		total := held + n
		switch {
		case end >= 0:
			p.write(buf[:end])
			return buf[end:total], nil
		case err == io.EOF:
			p.split.Rest(func(e openai.Event) { p.meter.See(e.Data) })
			return buf[:total], err
		case err != nil:
			return nil, err
		}
		if held = p.split.Unfinished(); held >= len(buf) && p.large != nil || held > total {
			held = 0 // a line longer than the buffer goes out in pieces
		}
		p.write(buf[:total-held])
		if p.gone && !p.x.snap.Limits.Drain {
			return nil, nil
		}
		next := buf
		if total == len(buf) && p.large == nil {
			p.large = largeBuffers.Get().(*[]byte)
			next = *p.large
		}
		copy(next, buf[total-held:total])
		buf = next
	}
}

// write sends lines to the app and flushes them.
func (p *pump) write(lines []byte) {
	if p.strip != nil {
		p.out = p.strip.Append(p.out[:0], lines)
		lines = p.out
	}
	if p.gone || len(lines) == 0 {
		return
	}
	p.x.wrote = true
	p.x.deadline()
	_, err := p.x.w.Write(lines)
	if err == nil {
		err = p.x.control().Flush()
	}
	if err != nil && p.x.snap.Limits.Drain {
		time.AfterFunc(drainTime, func() { _ = p.reply.Body.Close() })
	}
	p.gone = err != nil
}

// close records the outcome. What the request cost goes out as a trailer.
func (p *pump) close(complete bool) {
	p.a.account(&p.meter.Reply, complete, p.meter.Chunks, p.meter.Text(), p.meter.TextBytes)
	p.x.w.Header()[http.TrailerPrefix+"X-Occam-Cost-Usd"] = []string{p.x.cost()}
}

// cut ends a stream that the upstream cut: the app gets an error event and no end mark.
func (p *pump) cut(err error) {
	failed := p.x.failed(err)
	if !p.x.wrote {
		p.x.refuse(failed)
		return
	}
	p.strip = nil
	p.write(failed.AppendEvent(nil, p.x.api))
}
