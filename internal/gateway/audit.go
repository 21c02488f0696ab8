package gateway

import (
	"net/http"

	"occam/internal/cascade"
	"occam/internal/cost"
	"occam/internal/openai"
	"occam/internal/task"
)

// audit draws whether a tier's answer is checked and, if so, asks the generalist in the background. The draw does not look
// at the request: every answer has the same chance, which is what the drift tests assume.
func (x *exchange) audit(tier *Tier, p *task.Prediction) {
	share := x.task.Audit
	if !cascade.Audited(share, x.opts.Rand()) {
		return
	}
	w := &watched{tier: tier, p: clone(p), accepted: true}
	later := *x // the request ends before the audit does
	later.w = nil
	job := func() {
		values, simulated := later.ask()
		later.compare(w, values, true, share, simulated)
	}
	select {
	case x.audits <- job:
	default:
		x.opts.Log.Warn("too many audits wait; one is reported as missing", "request", x.id, "task", x.task.Name)
		x.compare(w, nil, true, share, false)
	}
}

func (s *Server) runAudits() {
	for {
		select {
		case job := <-s.audits:
			job()
		case <-s.life.Done():
			return
		}
	}
}

// ask puts the request to the generalist for an audit. It returns its answer, nil where it gave no valid one.
func (x *exchange) ask() (values []task.Value, simulated bool) {
	edit := openai.Edit{NoStream: true}
	if x.request.Model == x.task.Name {
		edit.ResponseFormat, edit.System = x.task.format, x.task.System
	}
	x.reason = "audit"
	a, reply, refused := x.call(x.task.paid, edit, "/chat/completions", true)
	if refused != nil {
		return nil, false
	}
	defer reply.Body.Close()
	a.Status = reply.Status
	body, err := readAll(reply, x.snap.Limits.ReplyBytes)
	parsed, ok := openai.ParseReply(body)
	switch {
	case err != nil || !ok && reply.Status == http.StatusOK:
		a.estimate(cost.Usage{}, x.guess(len(a.body), 0), a.high)
		return nil, a.Simulated
	case reply.Status != http.StatusOK:
		a.unbilled(reply.Status)
		return nil, a.Simulated
	}
	a.account(parsed, true, int64(len(parsed.Content)))
	values, err = task.ParseAnswer(x.task.Fields, []byte(parsed.Content))
	if err != nil {
		return nil, a.Simulated
	}
	return values, a.Simulated
}
