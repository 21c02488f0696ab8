package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"occam/internal/lifecycle"
	"occam/internal/sample"
	"occam/internal/sim"
	"occam/internal/task"
)

// A chat is one exchange of an app that knows nothing of occam.
type chat struct {
	task, reason, content string
}

// converse sends one chat completion request and reads its content, from a stream too.
func converse(t *testing.T, base, system, user string, stream bool) chat {
	t.Helper()
	messages := []map[string]string{{"role": "user", "content": user}}
	if system != "" {
		messages = append([]map[string]string{{"role": "system", "content": system}}, messages...)
	}
	body, err := json.Marshal(map[string]any{"model": "gpt-4o", "messages": messages, "stream": stream})
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(base+"/v1/chat/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	c := chat{task: response.Header.Get("X-Occam-Task"), reason: response.Header.Get("X-Occam-Reason")}
	if response.StatusCode != 200 {
		data, _ := io.ReadAll(response.Body)
		t.Fatalf("status %d: %s", response.StatusCode, data)
	}
	type part struct{ Content string }
	var reply struct {
		Choices []struct{ Message, Delta part }
	}
	if !stream {
		if err := json.NewDecoder(response.Body).Decode(&reply); err != nil {
			t.Fatal(err)
		}
		c.content = reply.Choices[0].Message.Content
		return c
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		if err := json.Unmarshal([]byte(data), &reply); err != nil {
			t.Fatal(err)
		}
		for _, choice := range reply.Choices {
			c.content += choice.Delta.Content
		}
	}
	return c
}

// formOfTickets writes the fields of the sample tickets as two lines.
const formOfTickets = "Category: {{category}}\nOrder ID: {{order_id|none}}"

func asForm(truth task.Output) string {
	order := truth[sample.OrderID].Text()
	if truth[sample.OrderID].IsNull() {
		order = "none"
	}
	return "Category: " + truth[sample.Category].Text() + "\nOrder ID: " + order
}

// A specialist answers in the shape in which the generalist does, streamed or not; the generalist's answers are understood in it.
func TestSpecialistsAnswerInTheShapeOfTheGeneralist(t *testing.T) {
	if testing.Short() {
		t.Skip("trains a model")
	}
	f := newFixtureOf(t, sim.Options{Write: asForm}, fmt.Sprintf("audit: 1, system: Sort., answer: %q", formOfTickets), "capture: {prompts: true}\n")
	base, _, stop := serve(t, f.config)
	fields := modelFields(t, filepath.Join(filepath.Dir(f.config), "m.occam"))
	form, err := task.ParseForm(formOfTickets, fields)
	if err != nil {
		t.Fatal(err)
	}
	served, escalated := 0, 0
	for i, x := range f.tickets[:120] {
		if x.OutOfScope {
			continue
		}
		c := converse(t, base, "Sort.", x.Text, i%2 == 0)
		if c.task != "triage" {
			t.Fatalf("not recognised: %+v", c)
		}
		if c.reason == "certified" {
			served++
		} else {
			escalated++
		}
		values, err := form.Parse(fields, []byte(c.content))
		if err != nil || string(form.Append(nil, fields, values)) != c.content {
			t.Fatalf("the answer %q (%s) has not the shape of %q: %v", c.content, c.reason, formOfTickets, err)
		}
	}
	if served < 20 || escalated < 5 {
		t.Errorf("%d served, %d escalated", served, escalated)
	}
	type shown struct {
		Models []struct {
			Evidence struct{ Compared, Disagreed, Missing int }
		}
	}
	wait(t, "audits", func() bool {
		e := read[shown](t, mustRun(t, "", "tasks", "show", "triage", "--json", "--config", f.config)).Models[0].Evidence
		return e.Compared >= served-served/10 && e.Disagreed < e.Compared/3 && e.Missing == 0
	})
	stop()
}

// Traffic without schema and system prompt whose answers are bare labels: it is discovered, made a task by one command,
// recognised from then on, and its labels are learned.
func TestBareLabelsBecomeATask(t *testing.T) {
	const template = "Which colour is meant here? One word.\n\n"
	colour := func(i int) string { return []string{"red", "green", "blue"}[i%3] }
	f := newFixtureOf(t, sim.Options{Write: func(truth task.Output) string { return truth["colour"].Text() }, Oracle: func(in string) task.Output {
		return task.Output{"colour": task.String(in[strings.LastIndex(in, " ")+1:])}
	}}, "", "capture: {prompts: true}\n")
	base, _, stop := serve(t, f.config)
	for i := range 40 {
		if c := converse(t, base, "", fmt.Sprintf("%sitem %d of my list is %s", template, i, colour(i)), false); c.task != "none" || c.content != colour(i) {
			t.Fatalf("%+v", c)
		}
	}
	var groups []lifecycle.Group
	discover := func() bool {
		groups = read[struct{ Groups []lifecycle.Group }](t, mustRun(t, "", "tasks", "discover", "--json", "--config", f.config)).Groups
		return len(groups) == 1 && groups[0].Requests == 40
	}
	wait(t, "a group", discover)
	stop()
	base, _, stop = serve(t, f.config)
	wait(t, "the group, after a restart", discover)
	if g := groups[0]; g.Shape != "label" || g.Format != "{{label}}" || !g.Offered || !strings.HasPrefix(g.Template, template) || g.Answers != 3 {
		t.Fatalf("%+v", g)
	}
	mustRun(t, "", "tasks", "discover", "--make", groups[0].ID, "--name", "colours", "--config", f.config)
	for i := range 30 {
		if c := converse(t, base, "", fmt.Sprintf("%sitem %d of my list is %s", template, 100+i, colour(i)), false); c.task != "colours" || c.content != colour(i) {
			t.Fatalf("%+v", c)
		}
	}
	if c := converse(t, base, "", "Which day is it?", false); c.task != "none" {
		t.Errorf("another question: %+v", c)
	}
	wait(t, "examples", func() bool {
		st := read[lifecycle.Status](t, mustRun(t, "", "tasks", "show", "colours", "--json", "--config", f.config))
		return st.Examples.Labelled == 30
	})
	stop()
}

// wait waits until something is so.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("no %s", what)
}
