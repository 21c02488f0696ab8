package task

import (
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// A Query is what a request shows of itself to the recogniser.
type Query struct {
	Model    string
	Messages []Message
	Schema   []byte // the JSON Schema the request wants its answer in, nil if none
}

// A Message is one turn of a request. Opaque marks content that is not plain text (images, tool calls, tool results).
type Message struct {
	Role   string
	Text   string
	Opaque bool
}

// A Match says which task a request belongs to.
type Match struct {
	Task     *Task
	By       string // "model", "schema", "system" or "input"
	Input    string // the variable text
	Readable bool   // false when the messages do not fit the task's template: only the generalist can answer
}

// A Recognizer finds the task of a request. It is immutable but for a bounded memory of schemas already seen, and safe for
// concurrent use.
type Recognizer struct {
	tasks  []*Task
	byName map[string]*Task
	// outlines are of the tasks' system prompts, where no other task's prompt has the same.
	outlines map[*Task]string

	schemas sync.Map // raw schema → []*Task
	seen    atomic.Int64
}

// These bound the recogniser's memory; schemas beyond are parsed each time.
const (
	maxSchemasRemembered = 1024
	maxSchemaRemembered  = 256 << 10 // bytes
)

// NewRecognizer returns a recogniser of these tasks.
func NewRecognizer(tasks []*Task) *Recognizer {
	r := &Recognizer{tasks: tasks, byName: make(map[string]*Task, len(tasks)), outlines: outline(tasks)}
	for _, t := range tasks {
		r.byName[t.Name] = t
	}
	return r
}

// Recognize returns the task that a request belongs to: by its model name, else by its output schema, else by its system
// prompt, else, for tasks that want it, by the words around the input. A request that could belong to two tasks belongs to none.
func (r *Recognizer) Recognize(q Query) (Match, bool) {
	if t, ok := r.byName[q.Model]; ok {
		return t.match(q, "model"), true
	}
	by, candidates, fits := "input", r.tasks, func(t *Task) bool { return t.ByInput && t.System == "" && t.servesInput(q.Messages) }
	switch system := systemPrompt(q.Messages); {
	case len(q.Schema) > 0: // a schema is some task's or none's: a system prompt must not overrule it
		by, candidates, fits = "schema", r.withSchema(q.Schema), func(t *Task) bool { return t.System == "" || r.servesSystem(t, system) }
	case system != "":
		by, fits = "system", func(t *Task) bool { return t.System != "" && r.servesSystem(t, system) }
	}
	t, ok := only(candidates, func(t *Task) bool { return t.servesModel(q.Model) && fits(t) })
	if !ok {
		return Match{}, false
	}
	return t.match(q, by), true
}

// servesModel: a request that names a model is only the task's when it names the model that the specialist stands in for.
func (t *Task) servesModel(model string) bool { return t.Generalist == "" || model == t.Generalist }

// servesSystem reports whether a request's system prompt is the task's: the same words, whatever numbers and dates stand in it.
// Where two tasks differ in numbers only, the numbers count.
func (r *Recognizer) servesSystem(t *Task, system string) bool {
	if strings.TrimSpace(t.System) == system {
		return true
	}
	outline := r.outlines[t]
	return outline != "" && outline == Outline(system)
}

func (t *Task) servesInput(messages []Message) bool {
	_, ok := t.inputOf(messages)
	return ok
}

// Outline keeps what a prompt says and drops its dates, numbers, case and spacing.
func Outline(text string) string {
	mapped := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return '0'
		}
		return unicode.ToLower(r)
	}, text)
	return strings.Join(strings.Fields(mapped), " ")
}

// outline returns the outlines of system prompts that are one task's alone.
func outline(tasks []*Task) map[*Task]string {
	owner := map[string]*Task{}
	for _, t := range tasks {
		if t.System == "" {
			continue
		}
		key := Outline(t.System)
		if other, taken := owner[key]; taken && (other == nil || strings.TrimSpace(other.System) != strings.TrimSpace(t.System)) {
			t = nil
		}
		owner[key] = t
	}
	outlines := map[*Task]string{}
	for key, first := range owner {
		for _, t := range tasks {
			if first != nil && t.System != "" && Outline(t.System) == key {
				outlines[t] = key
			}
		}
	}
	return outlines
}

func (t *Task) match(q Query, by string) Match {
	input, readable := t.inputOf(q.Messages)
	return Match{Task: t, By: by, Input: input, Readable: readable}
}

// inputOf extracts the variable text: the template applied to what the user wrote, all user turns joined by newlines.
func (t *Task) inputOf(messages []Message) (string, bool) {
	var turns []string
	for _, m := range messages {
		if m.Opaque || m.Role == "tool" || m.Role == "function" {
			return "", false
		}
		if m.Role == "user" {
			turns = append(turns, m.Text)
		}
	}
	if len(turns) == 0 {
		return "", false
	}
	if len(turns) == 1 {
		return t.Input.Extract(turns[0])
	}
	return t.Input.Extract(strings.Join(turns, "\n"))
}

func systemPrompt(messages []Message) string {
	for _, m := range messages {
		if m.Role == "system" || m.Role == "developer" {
			return strings.TrimSpace(m.Text)
		}
	}
	return ""
}

func (r *Recognizer) withSchema(schema []byte) []*Task {
	if known, ok := r.schemas.Load(string(schema)); ok {
		return known.([]*Task)
	}
	var found []*Task
	if fields, err := ParseSchema(schema); err == nil {
		for _, t := range r.tasks {
			if SameFields(t.Fields, fields) {
				found = append(found, t)
			}
		}
	}
	if len(schema) <= maxSchemaRemembered && r.seen.Add(1) <= maxSchemasRemembered {
		r.schemas.Store(string(schema), found)
	}
	return found
}

// only returns the single task that fits, or false when none or several do.
func only(tasks []*Task, fits func(*Task) bool) (*Task, bool) {
	var found *Task
	for _, t := range tasks {
		if !fits(t) {
			continue
		}
		if found != nil {
			return nil, false
		}
		found = t
	}
	return found, found != nil
}
