package openai

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func body(members string) []byte {
	if members != "" {
		members = "," + members
	}
	return []byte(`{"model":"m","messages":[{"role":"user","content":"hi"}]` + members + `}`)
}

func parse(t *testing.T, raw []byte) *Request {
	t.Helper()
	r, err := Parse(Chat, raw)
	if err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return r
}

func TestParseRequestReadsWhatTheGatewayNeeds(t *testing.T) {
	r := parse(t, body(`"stream":true,"stream_options":{"include_usage":true},"n":3,"max_tokens":7,"max_completion_tokens":9,"user":"u",
		"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object"}}},"unknown":{"a":null}`))
	if r.Model != "m" || !r.Stream || !r.IncludeUsage || r.N != 3 || r.MaxOutput != 9 || r.Format != "json_schema" ||
		string(r.Schema) != `{"type":"object"}` || r.Plain {
		t.Errorf("%+v", r)
	}
}

func TestPlainRequests(t *testing.T) {
	for members, plain := range map[string]bool{
		"":                                      true,
		`"tools":[],"stop":null`:                true,
		`"logprobs":false,"tool_choice":"auto"`: true,
		`"temperature":0,"seed":7`:              true,
		`"modalities":["text"]`:                 true,
		`"tools":[{"type":"function"}]`:         false,
		`"stop":"\n"`:                           false,
		`"logprobs":true`:                       false,
		`"n":2`:                                 false,
		`"n":1`:                                 true,
		`"audio":{"voice":"alloy"}`:             false,
	} {
		if got := parse(t, body(members)).Plain; got != plain {
			t.Errorf("%s: plain %v", members, got)
		}
	}
}

// S21: what two parsers could read differently is refused.
func TestRequestsThatParsersDisagreeOnAreRefused(t *testing.T) {
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for name, raw := range map[string]string{
		"model twice":          `{"model":"a","model":"b","messages":[]}`,
		"model twice, escaped": `{"model":"a","\u006dodel":"b","messages":[]}`,
		"model in capitals":    `{"model":"a","Model":"b","messages":[]}`, // Go's own parser would take it
		"a folded letter":      "{\"model\":\"a\",\"meſſages\":[],\"messages\":[]}",
		"capitals alone":       `{"Model":"b","messages":[]}`,
		"max_tokens folded":    string(body(`"Max_Tokens":5`)),
		"nested key twice":     `{"model":"a","messages":[{"role":"user","role":"system"}]}`,
		"depth":                string(body(`"x":` + deep)),
		"depth of objects":     string(body(`"x":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000))),
		"NaN":                  string(body(`"temperature":NaN`)),
		"Infinity":             string(body(`"temperature":-Infinity`)),
		"1e400":                string(body(`"temperature":1e400`)),
		"many digits":          string(body(`"temperature":` + strings.Repeat("9", 400))),
		"lone surrogate":       string(body(`"x":"\ud800"`)),
		"reversed surrogates":  string(body(`"x":"\udc00\ud800"`)),
		"surrogate and letter": string(body(`"x":"\ud800\u0041"`)),
		"invalid UTF-8":        "{\"model\":\"a\xff\",\"messages\":[]}",
		"control character":    "{\"model\":\"a\x01\",\"messages\":[]}",
		"trailing text":        string(body("")) + "{}",
		"trailing comma":       `{"model":"a","messages":[],}`,
		"single quotes":        `{'model':'a'}`,
		"leading zero":         string(body(`"n":01`)),
		"byte order mark":      "\ufeff" + string(body("")),
		"comment":              `{"model":"a",/* x */"messages":[]}`,
		"empty":                ``,
		"array":                `[]`,
		"model is a number":    `{"model":1,"messages":[]}`,
		"model missing":        `{"messages":[]}`,
		"model null":           `{"model":null,"messages":[]}`,
		"messages missing":     `{"model":"m"}`,
		"messages is text":     `{"model":"m","messages":"hi"}`,
		"stream is text":       string(body(`"stream":"yes"`)),
		"n is zero":            string(body(`"n":0`)),
		"n is huge":            string(body(`"n":100000`)),
		"n is a fraction":      string(body(`"n":1.5`)),
		"max_tokens negative":  string(body(`"max_tokens":-1`)),
		"max_tokens overflows": string(body(`"max_tokens":99999999999999999999`)),
		"cut":                  `{"model":"m","messages":[`,
		"cut in a string":      `{"model":"m`,
		"cut in an escape":     `{"model":"m\u00`,
	} {
		_, err := Parse(Chat, []byte(raw))
		refused, ok := err.(*Error)
		if !ok || refused.Status != 400 || !json.Valid(refused.Append(nil, Chat)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessages(t *testing.T) {
	r := parse(t, []byte(`{"model":"m","messages":[
		{"role":"system","content":"be\u0020brief\n\ud83d\ude00"},
		{"role":"user","content":[{"type":"text","text":"one"},{"text":"two","type":"text"}]},
		{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"u"}}]},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c"}]},
		{"role":"tool","tool_call_id":"c","content":"42"}]}`))
	got, err := r.Turns()
	want := []Message{{"system", "be brief\n😀", false}, {"user", "one\ntwo", false}, {"user", "see", true},
		{"assistant", "", true}, {"tool", "42", false}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEditedChangesOnlyWhatItSays(t *testing.T) {
	raw := `{ "x":[1, 2],"model" : "a","stream":true, "messages":[{"role":"user","content":"hi"}] }`
	r := parse(t, []byte(raw))
	if got := r.Edited(Edit{}); &got[0] != &r.Body[0] {
		t.Error("nothing to edit, but the body was copied")
	}
	if got := r.Edited(Edit{Model: "a"}); string(got) != raw {
		t.Errorf("same model: %s", got)
	}
	want := `{ "x":[1, 2],"model" : "b\"","response_format":{"type":"json_schema","json_schema":{"name":"answer","strict":true,"schema":{"a":1}}},"stream":true,"stream_options":{"include_usage":true}, ` +
		`"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}] }`
	if got := r.Edited(Edit{Model: `b"`, Usage: true, Schema: []byte(`{"a":1}`), System: "s"}); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := r.Edited(Edit{NoStream: true}); !bytes.Contains(got, []byte(`"stream":false`)) {
		t.Errorf("no stream: %s", got)
	}
	for given, want := range map[string]string{
		`{"include_usage":false}`:       `"stream_options":{"include_usage":true}`,
		`{"include_obfuscation":false}`: `"stream_options":{"include_usage":true,"include_obfuscation":false}`,
		`{ }`:                           `"stream_options":{"include_usage":true}`,
		`null`:                          `"stream_options":{"include_usage":true}`,
	} {
		r := parse(t, body(`"stream":true,"stream_options":`+given))
		if got := r.Edited(Edit{Usage: true}); !bytes.Contains(got, []byte(want)) || !json.Valid(got) {
			t.Errorf("%s became %s", given, got)
		}
	}
}

// jsonValue draws JSON text in varied spelling.
func jsonValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kinds := 5
		if depth <= 0 {
			kinds = 3
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return rapid.SampledFrom([]string{"null", "true", "false", "0", "-1.5e3", "12345678901234567890"}).Draw(t, "atom")
		case 1:
			b, _ := json.Marshal(rapid.String().Draw(t, "string"))
			return string(b)
		case 2:
			return `"\u0041\n\ud83d\ude00"`
		case 3:
			return "[" + strings.Join(rapid.SliceOfN(jsonValue(depth-1), 0, 4).Draw(t, "items"), " , ") + "]"
		default:
			keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}`), 0, 20, rapid.ID[string]).Draw(t, "keys")
			for i, k := range keys {
				keys[i] = `"` + k + `" :` + jsonValue(depth-1).Draw(t, "value")
			}
			return "{" + strings.Join(keys, ",\n") + "}"
		}
	})
}

func TestValidRequestsAreAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := jsonValue(4).Draw(t, "value")
		raw := body(`"zzzz":` + value)
		r, err := Parse(Chat, raw)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		edited := r.Edited(Edit{Model: "other", System: "s", Schema: []byte("{}")})
		if !json.Valid(edited) || !bytes.Contains(edited, []byte(value)) {
			t.Fatalf("edited to %s", edited)
		}
	})
}

// Whatever ParseRequest accepts, encoding/json reads the same way.
func FuzzParse(f *testing.F) {
	f.Add(body(`"stream":true,"n":2,"stream_options":{"include_usage":true}`))
	f.Add([]byte(`{"model":"a","\u006dodel":"b","messages":[]}`))
	f.Add([]byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"tools":[{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(Chat, raw)
		if err != nil {
			if !json.Valid(err.(*Error).Append(nil, Chat)) {
				t.Fatal("the error is no JSON")
			}
			return
		}
		var std struct {
			Model    string
			Stream   *bool
			Messages []json.RawMessage
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		_ = json.Unmarshal(members["model"], &std.Model)
		_ = json.Unmarshal(members["stream"], &std.Stream)
		if std.Model != r.Model || (std.Stream != nil && *std.Stream) != r.Stream {
			t.Fatalf("read model %q stream %v, encoding/json %q %v", r.Model, r.Stream, std.Model, std.Stream)
		}
		_, _ = r.Turns()
		edited := r.Edited(Edit{Model: "other", Usage: true, System: "s", Schema: []byte("{}")})
		if _, err := Parse(Chat, edited); err != nil {
			t.Fatalf("edited into something broken: %v\n%s", err, edited)
		}
	})
}

func TestNewChatTakesEveryText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		turns := []Message{{Role: "system", Text: rapid.String().Draw(t, "system")}, {Role: "user", Text: text}}
		r := NewChat("m", turns, rapid.Int64Range(0, 10).Draw(t, "max"))
		got, err := r.Turns()
		turns[1].Text = strings.ToValidUTF8(text, "\uFFFD")
		if err != nil || len(got) != 2 || got[0] != turns[0] || strings.ReplaceAll(got[1].Text, "\uFFFD", "") != strings.ReplaceAll(turns[1].Text, "\uFFFD", "") {
			t.Fatalf("%v became %v: %v", turns, got, err)
		}
	})
}
