package batch

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"occam/internal/sim"
)

// S01: nothing in a file, in a batch or in their headers can choose where a line is sent.
func TestS01NoBatchChoosesItsDestination(t *testing.T) {
	var visits atomic.Int64
	canary := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	defer canary.Close()
	p, url := provide(t, sim.Options{})
	o, c := work(t, url, Limits{})
	members := []string{"base_url", "api_base", "api_url", "endpoint", "proxy", "provider", "azure_endpoint", "provider_options", "extra_body", "host", "uri",
		"callback_url", "webhook", "webhook_url", "output_url", "input_file_url"}
	var lines strings.Builder
	n := 0
	for _, member := range members {
		for _, value := range []string{`"` + canary.URL + `"`, `{"base_url":"` + canary.URL + `","options":{"baseURL":"` + canary.URL + `"}}`} {
			for _, model := range []string{"gpt-4o", "claude-haiku-4-5"} {
				for _, into := range []string{`"max_tokens":`, `"custom_id":`} { // a member of the request, or of the line
					line := request(fmt.Sprint("l-", n), model, "where is parcel 1", false)
					fmt.Fprintln(&lines, strings.Replace(line, into, `"`+member+`":`+value+`,`+into, 1))
					n++
				}
			}
		}
	}
	for i, address := range []string{canary.URL + "/v1/chat/completions", "//" + strings.TrimPrefix(canary.URL, "http://") + "/v1/chat/completions", "/v1/../../chat/completions"} {
		line := request(fmt.Sprint("u-", i), "gpt-4o", "where is parcel 1", false)
		fmt.Fprintln(&lines, strings.Replace(line, `"url":"/v1/chat/completions"`, `"url":"`+address+`"`, 1))
		n++
	}
	file := c.hostileUpload(canary.URL, members, lines.String())
	ended := c.await(c.hostileBatch(canary.URL, members, file))
	if counts := ended["request_counts"].(map[string]any); counts["total"] != float64(n) || counts["failed"].(float64) < 3 || counts["completed"].(float64) == 0 {
		t.Errorf("%v of %d lines", counts, n)
	}
	if visits.Load() != 0 {
		t.Errorf("%d requests went elsewhere", visits.Load())
	}
	o.reconcile(t, p)
}

// hostile sends with headers that name another place.
func (c client) hostile(to, path, kind string, body io.Reader) map[string]any {
	c.t.Helper()
	r, err := http.NewRequest("POST", c.url+path+"?base_url="+to+"&api_base="+to, body)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	for _, name := range []string{"X-Base-Url", "X-Forwarded-Host", "X-Original-Url", "X-Rewrite-Url", "Forwarded", "X-Api-Base", "X-Upstream", "X-Host",
		"Openai-Base-Url", "Api-Base", "Destination", "X-Http-Method-Override"} {
		r.Header.Set(name, to)
	}
	r.Host = strings.TrimPrefix(to, "http://")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 {
		c.t.Fatalf("%s: %d %s", path, res.StatusCode, text)
	}
	return decode(text)
}

func (c client) hostileUpload(to string, members []string, content string) (id string) {
	c.t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for _, member := range members {
		_ = w.WriteField(member, to)
	}
	_ = w.WriteField("purpose", "batch")
	f, _ := w.CreateFormFile("file", to+"/tickets.jsonl")
	_, _ = io.WriteString(f, content)
	_ = w.Close()
	return c.hostile(to, "/v1/files", w.FormDataContentType(), &form)["id"].(string)
}

func (c client) hostileBatch(to string, members []string, file string) (id string) {
	c.t.Helper()
	more := ""
	for _, member := range members {
		if member != "endpoint" { // that is the batch's own word, and an address is refused
			more += fmt.Sprintf(`,%q:%q`, member, to)
		}
	}
	if status, text := c.do("POST", "/v1/batches", "application/json", strings.NewReader(fmt.Sprintf(
		`{"input_file_id":%q,"endpoint":%q,"completion_window":"24h"}`, file, to+"/v1/chat/completions"))); status != 400 {
		c.t.Errorf("an address as the endpoint: %d %s", status, text)
	}
	return c.hostile(to, "/v1/batches", "application/json", strings.NewReader(fmt.Sprintf(
		`{"input_file_id":%q,"endpoint":"/v1/chat/completions","completion_window":"24h","metadata":{"base_url":%q}%s}`, file, to, more)))["id"].(string)
}
