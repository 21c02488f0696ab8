package gateway

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"occam/internal/engine"
	"occam/internal/store"
)

// raw sends bytes to the gateway and returns all that comes back.
func raw(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	io.WriteString(c, request)
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// S01: nothing in a request can choose where it goes.
func TestS01NoRequestChoosesItsDestination(t *testing.T) {
	w := newWorld(t)
	w.model.p.Score = 0
	address, _ := w.serve()
	var visits atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer canary.Close()
	host := strings.TrimPrefix(canary.URL, "http://")
	fields := []string{"base_url", "api_base", "api_url", "endpoint", "proxy", "provider", "azure_endpoint", "custom_llm_provider", "deployment_url", "url"}
	for _, body := range []string{plainBody, streamBody, taskBody} {
		for _, f := range fields {
			for _, value := range []string{`"` + canary.URL + `"`, `{"base_url":"` + canary.URL + `","options":{"baseURL":"` + canary.URL + `"}}`} {
				w.post(strings.Replace(body, "{", `{"`+f+`":`+value+`,`, 1))
			}
		}
		w.post(strings.Replace(body, `"gpt-4o"`, `"`+canary.URL+`/gpt-4o"`, 1))
		for _, h := range []string{"X-Base-Url", "X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "Forwarded", "X-Api-Base", "Helicone-Target-Url", "X-Portkey-Custom-Host", "X-Upstream"} {
			raw(t, address, fmt.Sprintf("POST /v1/chat/completions?base_url=%s&api_base=%s HTTP/1.1\r\nHost: %s\r\n%s: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
				canary.URL, canary.URL, host, h, canary.URL, len(body), body))
		}
		raw(t, address, fmt.Sprintf("POST %s/v1/chat/completions HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", canary.URL, host, len(body), body))
	}
	raw(t, address, "CONNECT "+host+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	if visits.Load() != 0 {
		t.Errorf("%d requests went to another place", visits.Load())
	}
	if len(w.seen()) == 0 {
		t.Error("nothing arrived at the right place either")
	}
}

// S01 on every endpoint and every kind of provider that has a key, as a fallback too: the key is seen at its own origin and nowhere
// else, and in no answer.
func TestS01EveryEndpointAndProvider(t *testing.T) {
	var visits atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer canary.Close()
	endpoints := map[string]string{
		"/v1/chat/completions": `{"model":"m","messages":[{"role":"user","content":"hi"}]}`,
		"/v1/responses":        `{"model":"m","input":"hi"}`,
		"/v1/messages":         `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`,
		"/v1/embeddings":       `{"model":"m","input":"hi"}`,
		"/v1/decisions":        `{"model":"m","input":"hi","questions":[{"type":"predicate","name":"a","instructions":"is it?"}]}`,
		"/v1/systemone":        `{"model":"m","state":"hi","questions":{"a":{"type":"noul","instructions":"is it?"}}}`,
	}
	fields := []string{"base_url", "api_base", "api_url", "endpoint", "proxy", "provider", "azure_endpoint", "url", "provider_options", "extra_body", "extra_headers", "metadata", "host", "uri"}
	headers := []string{"X-Base-Url", "X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "Forwarded", "X-Api-Base", "Helicone-Target-Url", "X-Portkey-Custom-Host",
		"X-Upstream", "Host", "X-Host", "X-Http-Method-Override", "Openai-Base-Url", "Api-Base", "Destination", "Proxy-Connection"}
	for _, kind := range []string{engine.OpenAI, engine.Azure, engine.Anthropic} {
		for _, fallback := range []bool{false, true} {
			w := newWorld(t)
			var foreign atomic.Int64
			w.handle = func(rw http.ResponseWriter, r *http.Request) {
				if !strings.Contains(fmt.Sprint(r.Header), "sk-provider-secret") {
					foreign.Add(1)
				}
				rw.WriteHeader(400)
				fmt.Fprintf(rw, `{"error":{"message":"no"}}`)
			}
			u, err := engine.NewUpstream(engine.Options{Name: "p", Kind: kind, BaseURL: w.URL + "/v1", Key: "sk-provider-secret"})
			if err != nil {
				t.Fatal(err)
			}
			targets := []engine.Target{{Upstream: u, Model: "m"}}
			if fallback {
				gone := httptest.NewServer(nil)
				gone.Close()
				targets = append([]engine.Target{{Upstream: w.upstream("gone", gone.URL+"/v1"), Model: "m"}}, targets...)
			}
			w.snap = &Snapshot{Fallback: u, Models: map[string]engine.Route{"m": {Targets: targets}}, Limits: w.snap.Limits}
			w.publish()
			for path, body := range endpoints {
				for _, f := range fields {
					for _, value := range []string{`"` + canary.URL + `"`, `{"base_url":"` + canary.URL + `","order":["` + canary.URL + `"],"options":{"baseURL":"` + canary.URL + `"}}`} {
						w.hostile(canary.URL, path, strings.Replace(body, "{", `{"`+f+`":`+value+`,`, 1), "")
					}
				}
				for _, h := range headers {
					w.hostile(canary.URL, path+"?base_url="+canary.URL+"&api_base="+canary.URL, body, h)
				}
			}
			if visits.Load() != 0 || foreign.Load() != 0 || len(w.seen()) == 0 {
				t.Errorf("%s, fallback %v: %d requests went elsewhere, %d came without their key, %d arrived", kind, fallback, visits.Load(), foreign.Load(), len(w.seen()))
			}
			u.Close()
		}
	}
}

// hostile posts a body with a header that names another place, and looks for the provider's key in the answer.
func (w *world) hostile(to, path, body, header string) {
	w.t.Helper()
	req := httptest.NewRequest("POST", path, strings.NewReader(body))
	if header == "Host" {
		req.Host = strings.TrimPrefix(to, "http://")
	} else if header != "" {
		req.Header.Set(header, to)
	}
	answer := httptest.NewRecorder()
	w.server.ServeHTTP(answer, req)
	if all := answer.Body.String() + fmt.Sprint(answer.Header()); strings.Contains(all, "sk-provider-secret") {
		w.t.Errorf("POST %s shows the key: %s", path, all)
	}
}

// S03: headers in both directions are lists of what may pass.
func TestS03Headers(t *testing.T) {
	w := newWorld(t)
	w.handle = func(rw http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Set-Cookie", "X-Goog-Api-Key", "Authorization", "Openai-Organization", "Server", "Via", "X-Internal", "Location", "Strict-Transport-Security"} {
			rw.Header().Set(h, r.Header.Get("Authorization")) // an upstream that echoes the key
		}
		rw.Header().Set("X-Ratelimit-Remaining-Requests", "7")
		io.WriteString(rw, w.reply())
	}
	req, _ := http.NewRequest("POST", w.web.URL+"/v1/chat/completions", strings.NewReader(plainBody))
	secrets := []string{"Authorization", "Cookie", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "Api-Key", "X-Api-Key", "Proxy-Authorization",
		"Te", "Trailer", "Upgrade", "Keep-Alive", "X-Occam-Task", "X-Client-Request-Id", "Openai-Organization", "Openai-Project"}
	for _, h := range secrets {
		req.Header.Set(h, "app-secret")
	}
	req.Header.Set("Connection", "X-Hop, Accept")
	req.Header.Set("X-Hop", "app-secret")
	req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for name, values := range res.Header {
		if strings.Contains(strings.Join(values, ""), "sk-provider-secret") {
			t.Errorf("%s shows the provider's key", name)
		}
	}
	if res.Header.Get("X-Ratelimit-Remaining-Requests") != "7" || res.Header.Get("Location") != "" {
		t.Errorf("reply headers %v", res.Header)
	}
	got := w.headers[0]
	for name, values := range got {
		if strings.Contains(strings.Join(values, ""), "app-secret") {
			t.Errorf("the provider saw %s", name)
		}
	}
	if id := got.Get("X-Client-Request-Id"); id == "" || id != w.book.paid()[0].ID {
		t.Errorf("the provider got the request ID %q, not that of the ledger's row", id)
	}
	if got.Get("Authorization") != "Bearer sk-provider-secret" || !strings.HasPrefix(got.Get("Traceparent"), "00-4bf92f3577b34da6a3ce929d0e0e4736-") {
		t.Errorf("the provider got %v", got)
	}
}

// S18: large bodies are refused before anything is done with them.
func TestS18BodyLimit(t *testing.T) {
	w := newWorld(t)
	address, _ := w.serve()
	big := `{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat("x", 10<<20) + `"}]}`
	for _, chunked := range []bool{false, true} {
		req, _ := http.NewRequest("POST", "http://"+address+"/v1/chat/completions", strings.NewReader(big))
		if chunked {
			req.ContentLength = -1
			req.Body = io.NopCloser(struct{ io.Reader }{strings.NewReader(big)}) // else the client copies all of it
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		res, err := http.DefaultClient.Do(req)
		within(t, fmt.Sprintf("refusing, chunked %v", chunked), time.Since(began), 100*time.Millisecond)
		runtime.ReadMemStats(&after)
		// All that was ever allocated, the client's part with it: what is in use at any moment is less.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*4<<20+1<<20 {
			t.Errorf("chunked %v: %d KiB were allocated for a body beyond the limit of 4096", chunked, grown>>10)
		}
		if err != nil {
			t.Logf("chunked %v: the connection was closed: %v", chunked, err) // allowed: the rest is not read
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 413 || !bytes.Contains(body, []byte("body_too_large")) {
			t.Errorf("chunked %v: %d %s", chunked, res.StatusCode, body)
		}
	}
	if len(w.seen()) != 0 {
		t.Error("a body beyond the limit was sent on")
	}
	exact := `{"model":"gpt-4o","messages":[{"role":"user","content":"` + strings.Repeat("x", 4<<20-200) + `"}]}`
	if res, _ := w.post(exact); res.StatusCode != 200 {
		t.Errorf("a body within the limit got %d", res.StatusCode)
	}
}

func bomb() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 256 {
		z.Write(zeros)
	}
	z.Close()
	return b.Bytes()
}

// S19: nothing is inflated, neither what apps send nor what upstreams reply.
func TestS19DecompressionBombs(t *testing.T) {
	w := newWorld(t)
	packed := bomb()
	for _, encoding := range []string{"gzip", "deflate", "br", "zstd", "x-unknown"} {
		req, _ := http.NewRequest("POST", w.web.URL+"/v1/chat/completions", bytes.NewReader(packed))
		req.Header.Set("Content-Encoding", encoding)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 415 {
			t.Errorf("%s: %d", encoding, res.StatusCode)
		}
	}
	if len(w.seen()) != 0 {
		t.Error("a packed body was sent on")
	}
	w.handle = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Encoding", "gzip")
		rw.Write(packed)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	req, _ := http.NewRequest("POST", w.web.URL+"/v1/chat/completions", strings.NewReader(plainBody))
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d KiB were allocated for %d packed ones", grown>>10, len(packed)>>10)
	}
	if !bytes.Equal(got, packed) || res.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d packed bytes became %d", len(packed), len(got))
	}
	if a := w.book.paid(); len(a) != 1 || a[0].State != store.Estimated {
		t.Errorf("%+v", a)
	}
}

// S21: what parsers could read differently never reaches the provider; what does reach it names the model that was decided on.
func TestS21AmbiguousJSON(t *testing.T) {
	w := newWorld(t)
	for name, body := range map[string]string{
		"model twice":    `{"model":"gpt-4o-mini","model":"gpt-4o","messages":[]}`,
		"escaped twice":  `{"model":"gpt-4o-mini","mod\u0065l":"gpt-4o","messages":[]}`,
		"depth":          `{"model":"gpt-4o","messages":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`,
		"NaN":            `{"model":"gpt-4o","messages":[],"temperature":NaN}`,
		"overflow":       `{"model":"gpt-4o","messages":[],"temperature":1e400}`,
		"lone surrogate": `{"model":"gpt-4o\ud800","messages":[]}`,
		"NUL in JSON":    "{\"model\":\"gpt-4o\x00\",\"messages\":[]}",
	} {
		if res, text := w.post(body); res.StatusCode != 400 || !strings.Contains(text, "invalid_request_error") {
			t.Errorf("%s: %d %.200s", name, res.StatusCode, text)
		}
	}
	if len(w.seen()) != 0 {
		t.Errorf("%d ambiguous bodies were sent on", len(w.seen()))
	}
}

// S22: what stands in a header that is passed on does not become a header of its own.
func TestS22HeadersAreNotSplit(t *testing.T) {
	w := newWorld(t)
	address, _ := w.serve()
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	raw(t, address, head+fmt.Sprintf("Openai-Beta: a%%0d%%0aX-Evil: 1\r\nContent-Length: %d\r\n\r\n%s", len(plainBody), plainBody))
	if len(w.headers) != 1 || w.headers[0].Get("X-Evil") != "" {
		t.Errorf("the provider got %v", w.headers)
	}
}
