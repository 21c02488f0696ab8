package openai

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// pieces are what hostile bodies are made of.
var (
	hostileKeys = []string{`"model"`, `"model"`, `"Model"`, `"MODEL"`, `"mod\u0065l"`, `"model "`, `"model\u0000"`, `"mode\u006c"`, `"stream"`, `"Stream"`, `"temperature"`,
		`"x"`, `"n"`, `"N"`, `"user"`, `"messages"`, `"__proto__"`, `"constructor"`, `"\ud83d\ude00"`, `"\ud800"`, `""`}
	hostileValues = []string{`"gpt-4o"`, `"gpt-4o-mini"`, `"gpt\u002d4o"`, `"gpt-4o\u0000"`, `"\ud83d\ude00"`, `"\ud800"`, `"\udc00\ud800"`, `1`, `-0`, `1e400`, `NaN`, `Infinity`, `0x1`, `01`, `1.`,
		`true`, `null`, `[]`, `{}`, `{"model":"inner"}`, `[{"model":"inner"}]`, `"a" /* c */`, `'a'`, `{"__proto__":{"model":"p"}}`, "\"a\tb\"", `"\x41"`, `1e309`, `12345678901234567890123`, `"é"`, "\"\xff\""}
)

func hostileBody(r *rand.Rand) []byte {
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	members := []string{`"model":` + []string{`"gpt-4o"`, `"gpt\u002d4o"`, `"gpt-4o-mini"`}[r.IntN(3)], `"messages":[]`}
	for range r.IntN(4) {
		members = append(members, pick(hostileKeys)+[]string{":", " : ", ":\n"}[r.IntN(3)]+pick(hostileValues))
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	body := "{" + strings.Join(members, ",") + "}"
	switch r.IntN(12) {
	case 0:
		body = "\ufeff" + body
	case 1:
		body += []string{"{}", " ", "x", ",", "\x00"}[r.IntN(5)]
	case 2:
		body = strings.Replace(body, "}", ",}", 1)
	}
	return []byte(body)
}

// S21: whatever body the gateway accepts, other parsers see the same model in it: Go's own, which does not look at case and takes
// the last of two keys, its map, Python's and JavaScript's. Those that are not installed are left out, saying so.
func TestS21ParsersSeeTheSameModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var bodies [][]byte
	var models []string
	n := 20_000
	for range n {
		body := hostileBody(r)
		request, err := Parse(Chat, body)
		if err != nil {
			continue
		}
		bodies, models = append(bodies, body), append(models, request.Model)
		var loose struct{ Model string }
		if err := json.Unmarshal(body, &loose); err != nil || loose.Model != request.Model {
			t.Errorf("%s: the gateway sees %q, a struct %q, %v", body, request.Model, loose.Model, err)
		}
		var all map[string]any
		if err := json.Unmarshal(body, &all); err != nil || all["model"] != request.Model {
			t.Errorf("%s: the gateway sees %q, a map %q, %v", body, request.Model, all["model"], err)
		}
		edited := request.Edited(Edit{Model: "mapped"}) // what goes upstream where the name is mapped
		if again, err := Parse(Chat, edited); err != nil || again.Model != "mapped" {
			t.Errorf("%s: mapped it is %s", body, edited)
		}
	}
	if len(bodies) < n/20 {
		t.Fatalf("only %d of %d bodies were accepted", len(bodies), n)
	}
	others := map[string][]string{
		"python3": {"-c", "import sys,json\nfor l in sys.stdin:\n  try: print(json.dumps(json.loads(bytes.fromhex(l.strip()).decode())['model']))\n  except Exception as e: print(json.dumps('error '+str(e)))"},
		"node":    {"-e", "require('fs').readFileSync(0,'utf8').trim().split('\\n').forEach(l=>{try{console.log(JSON.stringify(JSON.parse(Buffer.from(l,'hex').toString()).model))}catch(e){console.log(JSON.stringify('error '+e))}})"},
	}
	for program, args := range others {
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("%s is not installed: its parser is not compared", program)
			continue
		}
		var in strings.Builder
		for _, body := range bodies {
			in.WriteString(hex.EncodeToString(body) + "\n")
		}
		command := exec.Command(program, args...)
		command.Stdin = strings.NewReader(in.String())
		out, err := command.Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		if len(lines) != len(bodies) {
			t.Fatalf("%s read %d of %d bodies", program, len(lines), len(bodies))
		}
		mismatches := 0
		for i, line := range lines {
			var model string
			if err := json.Unmarshal(line, &model); err != nil || model != models[i] {
				if mismatches++; mismatches <= 5 {
					t.Errorf("%s: the gateway sees %q, %s %s", bodies[i], models[i], program, line)
				}
			}
		}
		t.Logf("%s: %d bodies, %d mismatches", program, len(bodies), mismatches)
	}
}
