package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A request2 is one request as it goes over HTTP/2, where nothing ends a header but its length: its headers in order, and its body.
type request2 struct {
	headers [][2]string
	body    string
}

// smugglings2 are requests that would be two, or others, if a proxy wrote their headers into HTTP/1 as they are. Those of the first map
// hide a request in their body; those of the second, if they pass, are to bring no header that they did not have.
func smugglings2() (hiding, splitting map[string]request2) {
	inner := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden)
	head := func(path string, more ...string) [][2]string {
		h := [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}, {"content-type", "application/json"}}
		for i := 0; i < len(more); i += 2 {
			h = append(h, [2]string{more[i], more[i+1]})
		}
		return h
	}
	const chat = "/v1/chat/completions"
	hiding = map[string]request2{}
	for what, more := range map[string][]string{
		"length too small":         {"content-length", "2"},
		"length zero":              {"content-length", "0"},
		"length too large":         {"content-length", "9999"},
		"two lengths":              {"content-length", "2", "content-length", strconv.Itoa(2 + len(inner))},
		"length negative":          {"content-length", "-2"},
		"length with a plus":       {"content-length", "+2"},
		"a list of lengths":        {"content-length", "2, 2"},
		"length overflows":         {"content-length", "18446744073709551618"},
		"TE":                       {"transfer-encoding", "chunked"},
		"TE and length":            {"transfer-encoding", "chunked", "content-length", strconv.Itoa(2 + len(inner))},
		"TE in capitals":           {"Transfer-Encoding", "chunked"},
		"TE with a space":          {"transfer-encoding ", "chunked"},
		"TE with a tab":            {"transfer-encoding", "\tchunked"},
		"TE by te":                 {"te", "chunked"},
		"TE by connection":         {"connection", "transfer-encoding", "transfer-encoding", "chunked"},
		"TE in a value":            {"x-a", "b\r\nTransfer-Encoding: chunked"},
		"TE in a value after LF":   {"x-a", "b\nTransfer-Encoding: chunked"},
		"TE in a name":             {"x-a: b\r\ntransfer-encoding", "chunked"},
		"TE in a name after LF":    {"x-a: b\ntransfer-encoding", "chunked"},
		"length in a value":        {"x-a", "b\r\nContent-Length: 2"},
		"length in a name":         {"x-a: b\r\ncontent-length", "2"},
		"the end in a value":       {"x-a", "b\r\n\r\n" + inner},
		"the end in a name":        {"x-a: b\r\n\r\n" + inner, "c"},
		"upgrade":                  {"connection", "upgrade", "upgrade", "h2c"},
		"keep-alive":               {"connection", "keep-alive", "keep-alive", "timeout=5"},
		"NUL in a value":           {"x-a", "b\x00c"},
		"CR in a value":            {"x-a", "b\rContent-Length: 2"},
		"an empty name":            {"", "x"},
		"a colon as a name":        {":", "x"},
		"a late pseudo-header":     {"x-a", "b", ":path", "/healthz"},
		"an unknown pseudo":        {":protocol", "websocket"},
		"two hosts":                {"host", "y"},
		"underscores":              {"content_length", "2"},
		"a response's pseudo":      {":status", "200"},
		"expect":                   {"expect", "100-continue"},
		"a header of 60 kilobytes": {"x-a", strings.Repeat("a", 60<<10)},
	} {
		hiding[what] = request2{head(chat, more...), "{}" + inner}
	}
	for what, path := range map[string]string{
		"a request in the path":   chat + " HTTP/1.1\r\nHost: x\r\n\r\n" + inner,
		"a header in the path":    chat + " HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: y",
		"LF in the path":          chat + "\nTransfer-Encoding: chunked",
		"a space in the path":     chat + " HTTP/1.0",
		"an absolute path":        "http://y" + chat,
		"a path without a slash":  "v1/chat/completions",
		"an empty path":           "",
		"a fragment and a header": chat + "#\r\nContent-Length: 2",
		"NUL in the path":         chat + "\x00",
	} {
		hiding[what] = request2{head(path), "{}" + inner}
	}
	for i, pseudo := range []string{":method", ":scheme", ":authority"} {
		for what, value := range map[string]string{"a request": "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + inner, "a header": "x\r\nTransfer-Encoding: chunked", "LF": "x\nTransfer-Encoding: chunked", "a space": "x y"} {
			h := head(chat)
			h[i][1] = value
			hiding[what+" in "+pseudo] = request2{h, "{}" + inner}
		}
	}
	splitting = map[string]request2{}
	for i, value := range []string{"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\x00X-Evil: 1", "a%0d%0aX-Evil: 1", "a\u560d\u560aX-Evil: 1"} {
		splitting[fmt.Sprintf("a value %d", i)] = request2{head(chat, "openai-beta", value), plainBody}
		splitting[fmt.Sprintf("traceparent %d", i)] = request2{head(chat, "traceparent", value), plainBody}
	}
	splitting["a name"] = request2{head(chat, "openai-beta: a\r\nx-evil", "1"), plainBody}
	splitting["a name after LF"] = request2{head(chat, "openai-beta: a\nx-evil", "1"), plainBody}
	return hiding, splitting
}

// S22: HTTP/2 in front of the gateway, behind nginx and HAProxy that speak HTTP/1 to it: no hidden request is served, no header is
// made out of another, and the next client's request gets its own answer.
func TestS22HTTP2InFront(t *testing.T) {
	w := newWorld(t)
	address, _ := w.serve()
	hiding, splitting := smugglings2()
	for name, start := range map[string]func() string{
		"nginx":   func() string { return nginx(t, address, " http2") },
		"haproxy": func() string { return haproxy(t, address, " proto h2") },
	} {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("%s is not installed: HTTP/2 is not tried with it", name)
			continue
		}
		front := start()
		passed := 0
		for _, corpus := range []map[string]request2{hiding, splitting} {
			for what, request := range corpus {
				before := len(w.seen())
				status, body := ask2(t, front, request)
				if request.body != plainBody && strings.Contains(body, "chatcmpl") {
					t.Errorf("%s, %s: a hidden request was answered:\n%.500s", name, what, body)
				}
				if status == 200 {
					passed++
				}
				if status, body := ask2(t, front, request2{[][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "x"}, {":path", "/v1/chat/completions"},
					{"content-type", "application/json"}, {"content-length", strconv.Itoa(len(plainBody))}}, plainBody}); status != 200 || body != w.reply() {
					t.Errorf("%s, after %s the next client got %d %.300s", name, what, status, body)
				}
				if n := len(w.seen()) - before; n > 2 || n > 1 && status != 200 {
					t.Errorf("%s, %s: the provider got %d requests, the client %d", name, what, n, status)
				}
			}
		}
		t.Logf("%s: %d requests, %d of them harmless and answered", name, len(hiding)+len(splitting), passed)
	}
	for i, body := range w.seen() {
		if body != plainBody || w.headers[i].Get("X-Evil") != "" {
			t.Errorf("the provider got %s with %v", body, w.headers[i])
		}
	}
}

// ask2 sends a request over a new HTTP/2 connection, exactly as it is. status is 0 where the other end refused it without an answer.
func ask2(t *testing.T, address string, request request2) (status int, body string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(c, http2.ClientPreface)
	framer := http2.NewFramer(c, c)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range request.headers {
		_ = encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = framer.WriteSettings()
	fragment := block.Bytes()
	first := min(len(fragment), 16<<10)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fragment[:first], EndHeaders: first == len(fragment)})
	for rest := fragment[first:]; len(rest) > 0; {
		n := min(len(rest), 16<<10)
		_ = framer.WriteContinuation(1, n == len(rest), rest[:n])
		rest = rest[n:]
	}
	_ = framer.WriteData(1, true, []byte(request.body))
	for {
		frame, err := framer.ReadFrame()
		var wrong http2.StreamError
		if errors.As(err, &wrong) {
			continue
		}
		if err != nil {
			return status, body
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if s, err := strconv.Atoi(f.PseudoValue("status")); err == nil {
				status = s
			}
			if f.StreamEnded() {
				return status, body
			}
		case *http2.DataFrame:
			body += string(f.Data())
			if f.StreamEnded() {
				return status, body
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return status, body
		}
	}
}
