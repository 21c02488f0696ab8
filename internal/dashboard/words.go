package dashboard

import (
	"strings"

	"occam/internal/store"
)

// reasonWords says in words why a tier answered or did not. The keys are the reasons that the cascade writes on attempts.
var reasonWords = map[string]string{
	"certified":         "its certificate covers this request",
	"below_threshold":   "its score is below the certified threshold",
	"out_of_scope":      "the request is unlike those it was calibrated on",
	"no_certificate":    "nothing has been proved about this model yet",
	"invalid_output":    "its answer does not fit the task’s schema",
	"tier_failed":       "it gave no answer",
	"shadow":            "it only watches: the task is in shadow",
	"not_in_canary":     "this request is outside the canary’s share",
	"suspended":         "its certificate is suspended",
	"off":               "it is switched off",
	"not_plain":         "the request asks for what only the generalist can give",
	"unreadable":        "the messages do not fit the task’s template",
	"no_tier":           "the task has no specialist yet",
	"passthrough":       "the request belongs to no task",
	"review":            "no tier may answer: a person decides",
	"budget":            "the key’s budget is nearly used up, so a cheaper model was asked",
	"audit_rare":        "an audit of an answer that is given rarely",
	"audit":             "an audit of another tier’s answer",
	"not_covered":       "it was certified for other requests than those that the tiers before leave to it",
	"other_version":     "another version of the model answered than was certified",
	"calibration":       "a request of the past, asked again to certify a tier",
	"hedge":             "the first call was slow, so another was made beside it; the first answer counted",
	"self_test":         "occam asked to find out what the model supports",
	"escalation_budget": "the budget for escalations is used up",
}

// reason puts an attempt's reason into words; a reason that is not known is shown as it is.
func reason(code string) string {
	if words := reasonWords[code]; words != "" {
		return words
	}
	return strings.ReplaceAll(code, "_", " ")
}

// assumptionName puts the name of an assumption of the break-even into words.
func assumptionName(name string) string {
	return capital(strings.NewReplacer("_", " ", "usd", "dollars", "api", "API", "llama", "Llama", "flops", "FLOPS").Replace(name))
}

// stateWords says how far the ledger knows what an attempt cost.
var stateWords = map[store.State]string{
	store.Pending:   "open: sent, its outcome is not known yet",
	store.Settled:   "settled: the provider’s own usage",
	store.Estimated: "estimated: no usage was seen, the cost lies between two bounds",
	store.Void:      "void: never sent",
	store.Free:      "free: answered in this process",
	store.Unpriced:  "unpriced: no price is known for this model",
}

// commandWords says what a command does to a task.
var commandWords = map[string]string{
	"promote":  "Promote: one state further",
	"rollback": "Roll back: what answered before answers again",
	"pause":    "Pause: the generalist answers everything",
	"resume":   "Resume",
}

// taskStateWords says what a task's state means.
var taskStateWords = map[string]string{
	"observing": "requests pass through and are recorded",
	"candidate": "a specialist has been trained and waits",
	"shadow":    "the specialist answers in parallel; apps still get the generalist’s answer",
	"canary":    "the specialist answers a share of the requests",
	"live":      "the specialist answers what its certificate covers",
	"suspended": "the certificate was withdrawn; the generalist answers everything",
}

// person is the tier of a request that waits for a person.
const person = "person"

// A role is who did the work of an attempt, in the words and the order of the charts.
type role int

const (
	local   role = iota // a specialist in this process, or one that is paid
	general             // the generalist, for what no specialist may answer
	check               // an audit
	through             // no task
	roles
)

var roleNames = [roles]string{"Specialist", "Generalist", "Audits", "Pass-through"}

func roleOf(task, tier string, audit bool) role {
	switch {
	case audit:
		return check
	case task == "":
		return through
	case tier == "generalist" || tier == "" || tier == person:
		return general
	}
	return local
}
