package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"occam/internal/openai"
)

// models answers GET /v1/models: the models that are configured and the tasks, which apps may name as a model.
func (s *Server) models(x *exchange) {
	type model struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Created int64  `json:"created"`
		OwnedBy string `json:"owned_by"`
	}
	var list []model
	for name, route := range x.snap.Models {
		list = append(list, model{name, "model", 0, route.Targets[0].Upstream.Name})
	}
	for _, t := range x.snap.Tasks {
		list = append(list, model{t.Name, "model", 0, "occam"})
	}
	slices.SortFunc(list, func(a, b model) int { return strings.Compare(a.ID, b.ID) })
	body, err := json.Marshal(map[string]any{"object": "list", "data": list})
	if err != nil {
		x.refuse(&openai.Error{Status: 500, Type: "api_error", Message: err.Error()})
		return
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Occam-Request-Id", x.id)
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(body)
}
