package task

import (
	"strings"
	"sync"
	"sync/atomic"
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
	By       string // "model", "schema" or "system"
	Input    string // the variable text
	Readable bool   // false when the messages do not fit the task's template: only the generalist can answer
}

// A Recognizer finds the task of a request. It is immutable but for a bounded memory of schemas already seen, and safe for
// concurrent use.
type Recognizer struct {
	tasks  []*Task
	byName map[string]*Task

	schemas sync.Map // raw schema → []*Task
	seen    atomic.Int64
}

// maxSchemasRemembered bounds the recogniser's memory; schemas beyond it are parsed each time.
const maxSchemasRemembered = 1024

// NewRecognizer returns a recogniser of these tasks.
func NewRecognizer(tasks []*Task) *Recognizer {
	r := &Recognizer{tasks: tasks, byName: make(map[string]*Task, len(tasks))}
	for _, t := range tasks {
		r.byName[t.Name] = t
	}
	return r
}

// Recognize returns the task that a request belongs to: by its model name, else by its output schema, else by its system
// prompt. A request that could belong to two tasks belongs to none.
func (r *Recognizer) Recognize(q Query) (Match, bool) {
	if t, ok := r.byName[q.Model]; ok {
		return t.match(q, "model"), true
	}
	system := systemPrompt(q.Messages)
	if len(q.Schema) > 0 {
		candidates := r.withSchema(q.Schema)
		if t, ok := only(candidates, func(t *Task) bool { return t.servesModel(q.Model) && t.servesSystem(system) }); ok {
			return t.match(q, "schema"), true
		}
		return Match{}, false // the schema is another task's: a system prompt must not overrule it
	}
	if system == "" {
		return Match{}, false
	}
	t, ok := only(r.tasks, func(t *Task) bool { return t.System != "" && t.servesModel(q.Model) && t.servesSystem(system) })
	if !ok {
		return Match{}, false
	}
	return t.match(q, "system"), true
}

// servesModel: a request that names a model is only the task's when it names the model that the specialist stands in for.
func (t *Task) servesModel(model string) bool { return t.Generalist == "" || model == t.Generalist }

func (t *Task) servesSystem(system string) bool {
	return t.System == "" || strings.TrimSpace(t.System) == system
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
	if r.seen.Add(1) <= maxSchemasRemembered {
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
