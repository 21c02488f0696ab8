package task

import (
	"fmt"
	"strings"
)

// A Template says where the variable text stands in a user's message: literal text around exactly one {{name}}.
// The zero Template takes the whole message.
type Template struct {
	prefix, name, suffix string
}

// ParseTemplate reads "literal {{name}} literal".
func ParseTemplate(text string) (Template, error) {
	before, rest, ok := strings.Cut(text, "{{")
	if !ok {
		return Template{}, fmt.Errorf("task: input template %q has no {{variable}}", text)
	}
	name, after, ok := strings.Cut(rest, "}}")
	name = strings.TrimSpace(name)
	if !ok || name == "" {
		return Template{}, fmt.Errorf("task: input template %q: {{ without a name and }}", text)
	}
	if strings.Contains(after, "{{") {
		return Template{}, fmt.Errorf("task: input template %q has more than one {{variable}}", text)
	}
	return Template{prefix: before, name: name, suffix: after}, nil
}

// Extract returns the variable part of message, or false when the literal text around it does not match.
func (t Template) Extract(message string) (string, bool) {
	if len(message) < len(t.prefix)+len(t.suffix) || !strings.HasPrefix(message, t.prefix) || !strings.HasSuffix(message, t.suffix) {
		return "", false
	}
	return message[len(t.prefix) : len(message)-len(t.suffix)], true
}

// Fill returns the message with input in the variable's place.
func (t Template) Fill(input string) string { return t.prefix + input + t.suffix }

// String returns the template as ParseTemplate reads it.
func (t Template) String() string {
	name := t.name
	if name == "" {
		name = "text"
	}
	return t.prefix + "{{" + name + "}}" + t.suffix
}
