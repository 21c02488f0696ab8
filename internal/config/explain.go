package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

// text is a file's content without the byte order mark that some editors begin UTF-8 with.
func text(data []byte) ([]byte, error) {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("it is no text in UTF-8: save it as UTF-8")
	}
	return bytes.TrimPrefix(data, []byte("\ufeff")), nil
}

// decode reads YAML strictly into out, over what it holds already. Its errors name line and column in the words of the file.
func decode(data []byte, out any) error {
	err := yaml.UnmarshalWithOptions(data, out, yaml.Strict())
	if err == nil {
		return nil
	}
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		return at(unknown, unknownKey(unknown.Token.Value, reflect.TypeOf(out)))
	}
	if wrong, ok := errors.AsType[*yaml.TypeError](err); ok {
		return at(wrong, fmt.Sprintf("%s must stand here", wanted(wrong.DstType)))
	}
	return quoted(yaml.FormatError(err, false, true))
}

// at is a message with the place in the file where the decoder stopped.
func at(where yaml.Error, message string) error {
	return quoted(yaml.FormatErrorWithToken(message, where.GetToken(), false, true))
}

// secretKey finds a key whose value nobody else should see, also under a name that the configuration does not have.
var secretKey = regexp.MustCompile(`(?i)(?:\b|_)(?:[\w-]*(?:key|secret|token|passw|pwd|credential)[\w-]*|webhook|needed|answered|store|(?:base_?)?ur[il])["']?\s*:(?:\s+|$)`)

// shownLine is a line of the file in an error: its number, its indentation, and what stands there.
var shownLine = regexp.MustCompile(`^(>?\s*\d+ \| )( *)(.*)$`)

// quoted is an error that shows lines of the file, which may hold secrets: it may end in a log.
func quoted(message string) error {
	lines, under := strings.Split(message, "\n"), -1 // of which indentation the key is whose value the next lines are
	for i, line := range lines {
		m := shownLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if indent := len(m[2]); under >= 0 && indent > under {
			lines[i] = m[1] + m[2] + masked
			continue
		}
		under = -1
		text, open := hidden(m[3])
		if open {
			under = len(m[2])
		}
		lines[i] = m[1] + m[2] + text
	}
	return errors.New(strings.TrimSpace(strings.Join(lines, "\n")))
}

// hidden is a line of the file without its secrets. open says that the last one goes on in the next lines.
func hidden(line string) (shown string, open bool) {
	for {
		at := secretKey.FindStringIndex(line)
		if at == nil {
			return shown + line, false
		}
		shown += line[:at[1]]
		value := line[at[1]:]
		n := len(value)
		switch {
		case value == "":
			return shown, true
		case strings.ContainsRune(">|{[", rune(value[0])):
			return shown + masked, true
		case value[0] == '"' || value[0] == '\'':
			if i := strings.IndexByte(value[1:], value[0]); i >= 0 {
				n = i + 2
			}
		case strings.ContainsAny(shown, "{["): // its end is that of the member
			if i := strings.IndexAny(value, ",}]"); i >= 0 && !strings.HasPrefix(value, "${") {
				n = i
			} else if i := strings.IndexByte(value, '}'); i >= 0 {
				n = i + 1
			}
		}
		if strings.Contains(value[:n], "${") {
			shown += value[:n]
		} else {
			shown += masked
		}
		line = value[n:]
	}
}

// wanted says what a value must be to fit a Go type.
func wanted(t reflect.Type) string {
	if t == reflect.TypeFor[Duration]() {
		return "a time such as 30s, 10m or 7d"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list, such as [a, b],"
	default:
		return "a block of key: value"
	}
}

// unknownKey says what a key that the configuration does not have was probably meant to be.
func unknownKey(key string, config reflect.Type) string {
	message := fmt.Sprintf("unknown key %q", key)
	known := keysOf(config, "", nil)
	var names, places []string
	for _, path := range known {
		name := path[strings.LastIndex(path, ".")+1:]
		names = append(names, name)
		if name == key {
			places = append(places, path)
		}
	}
	if len(places) > 0 {
		return fmt.Sprintf("%s here: there is %s", message, strings.Join(places, " and "))
	}
	if meant := Closest(key, names); meant != "" {
		return fmt.Sprintf("%s: did you mean %s?", message, meant)
	}
	return message + ": `occam init --config example.yaml` writes a file with all there are"
}

// keysOf lists the keys of a configuration type by their paths, such as limits.body_bytes and providers.NAME.base_url.
func keysOf(t reflect.Type, path string, above []reflect.Type) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		if t.Kind() == reflect.Map {
			path += "NAME."
		}
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(above, t) {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, inline, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case inline == "inline":
			keys = append(keys, keysOf(f.Type, path, append(above, t))...)
		case name != "" && name != "-":
			keys = append(append(keys, path+name), keysOf(f.Type, path+name+".", append(above, t))...)
		}
	}
	return keys
}

// Closest is the word among some that another was probably meant to be, "" where none is like it: at most a third of its letters
// are wrong, missing or too many, or it only leaves out, or adds, signs such as _.
func Closest(word string, among []string) string {
	best, least := "", len(word)/3+1
	for _, known := range among {
		if bare(known) == bare(word) {
			return known
		}
		if d := edits(word, known); d < least {
			best, least = known, d
		}
	}
	return best
}

func bare(word string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(word))
}

// edits counts the letters to replace, insert or delete to make one word of another.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
