package openai

import (
	"bytes"
	"encoding/json"
	"slices"
)

// A strict object is read member by member for a translation. What nobody asked for is refused by name: nothing that an app says
// is dropped without a word.
type strict struct {
	at   string // path of the object in the request, "" at the top
	into string // whose API it is translated for
	left map[string]json.RawMessage
	err  *Error // the first thing that cannot be translated
}

// strictly opens an object. at is its path, such as "messages[2]".
func strictly(raw json.RawMessage, at, into string) *strict {
	s := &strict{at: at, into: into}
	if err := json.Unmarshal(raw, &s.left); err != nil || s.left == nil {
		s.fail("", "it must be an object")
	}
	return s
}

func (s *strict) path(name string) string {
	switch {
	case s.at == "":
		return name
	case name == "":
		return s.at
	}
	return s.at + "." + name
}

// fail notes why a member cannot be translated.
func (s *strict) fail(name, why string) {
	if s.err == nil {
		s.err = BadRequest(s.path(name), "'"+s.path(name)+"' cannot be translated for "+s.into+", whose model answers this request: "+why+".")
	}
}

// get decodes a member. It reports false where the member is absent or null.
func (s *strict) get(name string, into any) bool {
	raw, ok := s.left[name]
	delete(s.left, name)
	if !ok || string(raw) == "null" {
		return false
	}
	if json.Unmarshal(raw, into) != nil {
		s.fail(name, "it has the wrong type")
		return false
	}
	return true
}

// neutral accepts a member where its value asks for nothing: one of some JSON texts.
func (s *strict) neutral(name string, values ...string) {
	raw, ok := s.left[name]
	if !ok {
		return
	}
	var compact bytes.Buffer
	if json.Compact(&compact, raw) == nil && slices.Contains(values, compact.String()) {
		delete(s.left, name)
	}
}

// check refuses what is left, the first by name.
func (s *strict) check() *Error {
	names := make([]string, 0, len(s.left))
	for name, raw := range s.left {
		if string(raw) != "null" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > 0 {
		s.fail(names[0], "there is no word for it")
	}
	return s.err
}

// merge takes over the error of a part.
func (s *strict) merge(err *Error) {
	if s.err == nil {
		s.err = err
	}
}
