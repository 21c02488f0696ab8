package gateway

import (
	"encoding/json"
	"errors"
	"net/http"

	"occam/internal/openai"
	"occam/internal/task"
)

// feedback answers POST /v1/feedback: {"request_id":"…","labels":{"category":"refund_status"}}. A field that is left out
// stays as it is known.
func (s *Server) feedback(x *exchange) {
	body, refused := x.body()
	if refused != nil {
		x.refuse(refused)
		return
	}
	var said struct {
		RequestID string      `json:"request_id"`
		Labels    task.Output `json:"labels"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		x.refuse(openai.BadRequest("", "The body must be {\"request_id\":\"…\",\"labels\":{…}}: "+err.Error()+"."))
		return
	}
	if said.RequestID == "" || len(said.Labels) == 0 {
		x.refuse(openai.BadRequest("request_id", "Both request_id (the X-Occam-Request-Id of the answer) and labels are needed."))
		return
	}
	f := Feedback{RequestID: said.RequestID, Labels: said.Labels}
	if x.key != nil {
		f.KeyID = x.key.ID
	}
	if err := s.opts.OnFeedback(x.r.Context(), f); err != nil {
		x.refuseFeedback(err)
		return
	}
	x.wrote = true
	h := x.w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["X-Occam-Request-Id"] = []string{x.id}
	reply, _ := json.Marshal(map[string]string{"request_id": said.RequestID, "status": "recorded"}) // strings always encode
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(reply)
}

func (x *exchange) refuseFeedback(err error) {
	var blame *openai.Error
	if errors.As(err, &blame) {
		x.refuse(blame)
		return
	}
	x.opts.Log.Error("feedback could not be recorded", "request", x.id, "error", err)
	x.refuse(&openai.Error{Status: 503, Type: "api_error", Code: "feedback_unavailable", Message: "The feedback could not be recorded. Try again."})
}
