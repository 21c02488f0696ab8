package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"occam/internal/cascade"
	"occam/internal/engine"
	"occam/internal/openai"
	"occam/internal/store"
	"occam/internal/task"
)

// maxQuestions and maxOptions bound a typed decision.
const (
	maxQuestions = 400
	maxOptions   = 255
	maxLevels    = 255
)

// A question is one typed decision, in either shape.
type question struct {
	Type    string
	Name    *string  // nil where the request gives none
	options []string // texts; of a score, its levels from the lowest to the highest
	flags   bool     // the options are the values true and false, not texts
	field   int      // of the task that answers it
}

// An asked decision is a request of either shape.
type asked struct {
	model     string
	text      string
	opaque    bool // the input is not one text
	questions []question
	explain   bool                // the request wants to know why
	why       *engine.Explanation // of the answer, where it does
}

// decisions answers POST /v1/decisions.
func (s *Server) decisions(x *exchange) {
	x.decide("/decisions", parseDecisions, appendDecisions)
}

// systemOne answers POST /v1/systemone.
func (s *Server) systemOne(x *exchange) {
	x.decide("/systemone", parseSystemOne, appendSystemOne)
}

// decide answers typed questions with a specialist's calibrated probabilities, when they are those of a task and the tier's
// certificate accepts. Anything else goes to the model that the request names.
func (x *exchange) decide(path string, parse func([]byte) (*asked, error), write func([]byte, *asked, *task.Task, [][]float64) []byte) {
	body, refused := x.body()
	if refused != nil {
		x.refuse(refused)
		return
	}
	q, err := parse(body)
	if err != nil {
		x.refuse(openai.BadRequest("", "The body is no typed decision: "+err.Error()+"."))
		return
	}
	x.adopt(q)
	if x.request == nil {
		x.elsewhere(path, body, q, "No task has these options as the values of one field.")
		return
	}
	if refused := x.permitted(); refused != nil {
		x.refuse(refused)
		return
	}
	tier, p, attempt, odds := x.distribute(q)
	if tier == nil {
		x.elsewhere(path, body, q, fmt.Sprintf("No specialist may decide this with the required certainty (%s).", x.reason))
		return
	}
	if q.explain {
		if q.why, err = engine.Explain(tier.Specialist, x.input); err != nil {
			x.opts.Log.Error("a decision is not explained", "task", x.task.Name, "error", err)
		}
	}
	x.give(&attempt, write(make([]byte, 0, 1024), q, x.task.Task, odds))
	x.audit(tier, p)
	x.decided(tier, p, true, cascade.Certified)
}

// adopt finds the task whose fields the questions ask for, and puts its input into the shape of a chat. Which model the
// request names does not matter, unless it is a task's: the options say which job it is. Options of two tasks belong to none.
func (x *exchange) adopt(q *asked) {
	var t *Task
	if q.opaque {
		return
	}
	for i := range x.snap.Tasks {
		candidate := &x.snap.Tasks[i]
		switch {
		case !q.fits(candidate.Fields):
		case q.model == candidate.Name:
			x.adoptTask(q, candidate)
			return
		case t != nil:
			return
		default:
			t = candidate
		}
	}
	if t != nil && !x.snap.isTask(q.model) {
		x.adoptTask(q, t)
	}
}

func (x *exchange) adoptTask(q *asked, t *Task) {
	q.fits(t.Fields) // points the questions at this task's fields
	x.task, x.readable = t, true
	input, ok := t.Input.Extract(q.text)
	if !ok {
		input = q.text
	}
	x.input, x.inputHash = input, inputHash(input)
	turns := []openai.Message{{Role: "user", Text: t.Input.Fill(input)}}
	if t.System != "" {
		turns = slices.Insert(turns, 0, openai.Message{Role: "system", Text: t.System})
	}
	x.api, x.request = openai.Chat, openai.NewChat(t.Name, turns, 0)
}

// fits matches every question to a field: one with the same options, named so where there are several.
func (q *asked) fits(fields []task.Field) bool {
	for i := range q.questions {
		if q.questions[i].field = q.questions[i].match(fields); q.questions[i].field < 0 {
			return false
		}
	}
	return len(q.questions) > 0
}

func (q *question) match(fields []task.Field) int {
	found := -1
	for i, f := range fields {
		switch {
		case (q.Type == "choice" && !q.flags || q.Type == "score") && f.Kind == task.Category && task.SameMembers(q.options, f.Values):
		case (q.Type == "predicate" || q.Type == "noul" || q.Type == "choice" && q.flags) && f.Kind == task.Boolean:
		default:
			continue
		}
		if q.Name != nil && *q.Name == f.Name {
			return i
		}
		if found >= 0 {
			found = -2 // several fit and none has the name
			continue
		}
		found = i
	}
	return found
}

// distribute asks the tiers in order until one with a distribution may answer. Without one it returns a nil tier and the
// reason stands in x.
func (x *exchange) distribute(q *asked) (*Tier, *task.Prediction, store.Attempt, [][]float64) {
	x.reason = cascade.NoTier
	request := cascade.Request{Plain: true, Readable: true, Hash: x.inputHash}
	for i, step := range cascade.Plan(nil, x.task.deciding, request) {
		tier := &x.task.Tiers[i]
		knows, ok := tier.Specialist.(engine.Distributor)
		if step.Role == cascade.Skip || !ok {
			if step.Reason != "" {
				x.reason = step.Reason
			}
			continue
		}
		p := new(task.Prediction)
		t, reason := x.try(tier, p)
		if reason == cascade.Certified && step.Role == cascade.Answer {
			odds := make([][]float64, len(q.questions))
			for k := range q.questions {
				odds[k] = knows.Probabilities(nil, x.input, q.questions[k].field)
			}
			return tier, p, t.Attempt, odds
		}
		if reason == cascade.Certified {
			reason = step.Reason
		}
		x.reason = reason
		t.decline(reason)
		x.decided(tier, p, false, reason)
	}
	return nil, nil, store.Attempt{}, nil
}

// give writes a specialist's decision and records it.
func (x *exchange) give(a *store.Attempt, body []byte) {
	a.Reason, a.Answered, a.Status = string(cascade.Certified), true, http.StatusOK
	x.headers(a)
	h := x.w.Header()
	h["X-Occam-Cost-Usd"] = []string{x.cost()}
	h["Content-Type"] = []string{"application/json"}
	x.wrote = true
	x.deadline()
	_, _ = x.w.Write(body)
	x.done(a)
	a.Reference = x.reference(32)
	a.Latency = x.opts.Now().Sub(x.began)
	x.record(*a)
}

// elsewhere passes a decision that no specialist may make to the model that the request names. A task's name is no such
// model: there is nobody else to ask.
func (x *exchange) elsewhere(path string, body []byte, q *asked, why string) {
	route, ok := x.snap.route(q.model)
	if !ok || x.snap.isTask(q.model) {
		x.refuse(&openai.Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Code: "not_decidable",
			Message: why + " Name a model that makes decisions itself, or ask the task by chat completions."})
		return
	}
	x.task, x.readable = nil, false
	x.reason = cascade.PassThrough
	request, err := openai.ParseOther(body)
	if err != nil {
		x.refuse(err.(*openai.Error)) // ParseOther promises it
		return
	}
	x.request, x.path = request, path
	if refused := x.permitted(); refused != nil {
		x.refuse(refused)
		return
	}
	x.relay(&call{route: route})
}

// parseDecisions reads the shape of /v1/decisions.
func parseDecisions(body []byte) (*asked, error) {
	var in struct {
		Model     string          `json:"model"`
		Input     json.RawMessage `json:"input"`
		Explain   bool            `json:"explain"`
		Questions []struct {
			Type    string
			Name    *string
			Choices []struct{ Value any }
			Levels  []struct{ Label string }
		} `json:"questions"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	q := &asked{model: in.Model, explain: in.Explain}
	var err error
	if q.text, q.opaque, err = inputText(in.Input); err != nil {
		return nil, err
	}
	for _, one := range in.Questions {
		next := question{Type: one.Type, Name: one.Name}
		for _, c := range one.Choices {
			if err := next.choose(c.Value); err != nil {
				return nil, err
			}
		}
		for _, l := range one.Levels {
			next.options = append(next.options, l.Label)
		}
		q.questions = append(q.questions, next)
	}
	return q, q.check()
}

// choose adds an option of a choice, which is a text or a truth value.
func (q *question) choose(value any) error {
	switch v := value.(type) {
	case string:
		q.options = append(q.options, v)
	case bool:
		q.options, q.flags = append(q.options, strconv.FormatBool(v)), true
	default:
		return fmt.Errorf("the value of a choice must be a text, true or false")
	}
	return nil
}

// inputText joins the text of an input that is a string or a list of messages. opaque says that it is more than text, or more than
// a person's words, so that no specialist can read it.
func inputText(raw json.RawMessage) (text string, opaque bool, err error) {
	wrapped, err := openai.Parse(openai.Responses, append(append([]byte(`{"model":"x","input":`), raw...), '}'))
	if err != nil || len(raw) == 0 {
		return "", false, fmt.Errorf("input must be a text or a list of messages")
	}
	turns, err := wrapped.Turns()
	if err != nil || len(turns) == 0 {
		return "", false, fmt.Errorf("input must be a text or a list of messages")
	}
	for _, m := range turns {
		opaque = opaque || m.Opaque || m.Role == "assistant"
		if text != "" {
			text += "\n"
		}
		text += m.Text
	}
	return text, opaque, nil
}

func (q *asked) check() error {
	if q.model == "" {
		return fmt.Errorf("model is missing")
	}
	if len(q.questions) == 0 || len(q.questions) > maxQuestions {
		return fmt.Errorf("there are %d questions, from 1 to %d are possible", len(q.questions), maxQuestions)
	}
	for _, one := range q.questions {
		switch {
		case one.Type == "" || len(one.options) > maxOptions:
			return fmt.Errorf("a question needs a type and at most %d options", maxOptions)
		case (one.Type == "choice" || one.Type == "score") && len(one.options) < 2:
			return fmt.Errorf("a question of the type %s needs at least two options", one.Type)
		case one.Type == "score" && len(one.options) > maxLevels:
			return fmt.Errorf("a score has at most %d levels", maxLevels)
		case repeats(one.options):
			return fmt.Errorf("the options of a question must differ")
		}
	}
	return nil
}

func repeats(options []string) bool {
	sorted := slices.Clone(options)
	slices.Sort(sorted)
	return len(slices.Compact(sorted)) != len(options)
}

// parseSystemOne reads the shape of /v1/systemone, whose questions are a map: they are answered in the order of their names.
func parseSystemOne(body []byte) (*asked, error) {
	var in struct {
		Model     string          `json:"model"`
		State     json.RawMessage `json:"state"`
		Questions map[string]struct {
			Type     string
			Criteria json.RawMessage
		} `json:"questions"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	if in.State == nil {
		return nil, fmt.Errorf("state is missing")
	}
	q := &asked{model: in.Model}
	if json.Unmarshal(in.State, &q.text) != nil {
		q.text = string(in.State) // any other JSON stands for itself
	}
	for name, one := range in.Questions {
		next := question{Type: one.Type, Name: &name}
		var criteria map[string]json.RawMessage
		switch {
		case one.Type == "choice" && json.Unmarshal(one.Criteria, &criteria) != nil:
			return nil, fmt.Errorf("the criteria of %q must be an object of options", name)
		case one.Type == "score" && json.Unmarshal(one.Criteria, &next.options) != nil:
			return nil, fmt.Errorf("the criteria of %q must be a list of levels, from the lowest to the highest", name)
		}
		for option := range criteria {
			next.options = append(next.options, option)
		}
		if one.Type == "choice" {
			slices.Sort(next.options)
		}
		q.questions = append(q.questions, next)
	}
	slices.SortFunc(q.questions, func(a, b question) int { return compareNames(a.Name, b.Name) })
	return q, q.check()
}
