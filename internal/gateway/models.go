package gateway

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"occam/internal/engine"
	"occam/internal/openai"
)

const (
	listPatience = 3 * time.Second // for a provider's list of models
	listFresh    = time.Minute     // a list is asked for again after that
	maxList      = 4 << 20         // bytes of a page
	maxListPages = 20
)

// A model is one entry of GET /v1/models. Members that a provider adds are kept.
type model map[string]any

// A modelList is what a provider offered, and when.
type modelList struct {
	upstream *engine.Upstream
	at       time.Time
	models   []model
}

// models answers GET /v1/models: the models that are configured, those of the provider that everything else goes to, and the
// tasks, which apps may name as a model. A key that is held to models sees those only.
func (s *Server) models(x *exchange) {
	byID := map[string]model{}
	for _, m := range s.offered(x) {
		if id, ok := m["id"].(string); ok {
			byID[id] = maps.Clone(m) // the list is kept for other requests
		}
	}
	entry := func(id, owner string) model {
		return model{"id": id, "object": "model", "created": int64(0), "owned_by": owner}
	}
	for name, route := range x.snap.Models {
		byID[name] = entry(name, route.Targets[0].Upstream.Name)
	}
	s.dateEndings(x, byID)
	if x.key != nil && len(x.key.Limits.Models) > 0 {
		for id := range byID {
			if !slices.Contains(x.key.Limits.Models, id) {
				delete(byID, id)
			}
		}
	}
	for _, t := range x.snap.Tasks {
		if x.key == nil || len(x.key.Limits.Tasks) == 0 || slices.Contains(x.key.Limits.Tasks, t.Name) {
			byID[t.Name] = entry(t.Name, "occam")
		}
	}
	list := make([]model, 0, len(byID))
	for _, m := range byID {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b model) int { return strings.Compare(a["id"].(string), b["id"].(string)) })
	whole := map[string]any{"object": "list", "data": list}
	if x.r.Header.Get("Anthropic-Version") != "" {
		whole = anthropicList(list)
	}
	body, err := json.Marshal(whole)
	if err != nil {
		x.refuse(&openai.Error{Status: 500, Type: "api_error", Message: "The list of models cannot be written."})
		return
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Occam-Request-Id", x.id)
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(body) // an app that went away needs no list
}

// anthropicList is the list for an app that speaks Anthropic's API, on one page. Members that Anthropic's own list has are kept.
func anthropicList(list []model) map[string]any {
	data := make([]model, len(list))
	var first, last any
	for i, m := range list {
		if last = m["id"]; i == 0 {
			first = last
		}
		created, _ := m["created"].(float64) // of the lists that are fetched; the others do not know
		one := model{"type": "model", "display_name": m["id"], "created_at": time.Unix(int64(created), 0).UTC().Format(time.RFC3339), "lifecycle": "active",
			"retires_at": nil}
		if end, ok := m["shutdown_date"].(string); ok {
			one["lifecycle"], one["retires_at"] = "deprecated", end+"T00:00:00Z"
		}
		for name, value := range m {
			if name != "object" && name != "created" && name != "owned_by" && name != "shutdown_date" {
				one[name] = value
			}
		}
		data[i] = one
	}
	return map[string]any{"data": data, "has_more": false, "first_id": first, "last_id": last}
}

// dateEndings says of each model when its provider stops it, where that is known.
func (s *Server) dateEndings(x *exchange, byID map[string]model) {
	for id, m := range byID {
		route, ok := x.snap.route(id)
		if !ok {
			continue
		}
		price, _ := x.snap.price(route.Targets[0], "", x.began)
		if at := s.ending(route.Targets[0], price); !at.IsZero() && m["shutdown_date"] == nil {
			m["shutdown_date"] = at.Format(time.DateOnly)
		}
	}
}

// offered is what the provider of unlisted models offers. A provider that does not answer in time offers what it did before.
func (s *Server) offered(x *exchange) []model {
	u := x.snap.Fallback
	if u == nil {
		return nil
	}
	known := s.listed.Load()
	if known != nil && known.upstream == u && x.opts.Now().Sub(known.at) < listFresh {
		return known.models
	}
	next := &modelList{upstream: u, at: x.opts.Now()}
	if known != nil && known.upstream == u {
		next.models = known.models
	}
	if fresh, err := fetchModels(x.r.Context(), u); err == nil {
		next.models = fresh
	} else if x.r.Context().Err() != nil {
		return next.models // the app went away: that says nothing of the provider
	} else {
		x.opts.Log.Warn("a provider does not list its models", "provider", u.Name, "error", err)
	}
	s.listed.Store(next)
	return next.models
}

// fetchModels asks for a provider's list: one page at most, or several at Anthropic.
func fetchModels(ctx context.Context, u *engine.Upstream) (all []model, err error) {
	ctx, cancel := context.WithTimeout(ctx, listPatience)
	defer cancel()
	after := ""
	for range maxListPages {
		var list struct {
			Data []model
			More bool   `json:"has_more"`
			Last string `json:"last_id"`
		}
		if err := fetchPage(ctx, u, after, &list); err != nil {
			return nil, err
		}
		all = append(all, list.Data...)
		if !list.More || list.Last == "" {
			break
		}
		after = "after_id=" + url.QueryEscape(list.Last)
	}
	return all, nil
}

func fetchPage(ctx context.Context, u *engine.Upstream, query string, into any) error {
	reply, err := u.Send(ctx, &engine.Call{Method: http.MethodGet, Path: "/models", Query: query, Header: http.Header{"User-Agent": {"occam"}}})
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	body, err := readAll(reply, maxList, uncounted)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
