package task

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxLine is the longest line of a data file, in bytes.
const MaxLine = 16 << 20

// maxProblems ends the reading of a file that is not data at all.
const maxProblems = 1000

// A Problem is one line that could not be read, or that contradicts another.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason) }

// Opening looks at the first bytes of a data file: bad says why it is none at all, start is where its first line begins, behind the
// byte order mark that some editors write.
func Opening(first []byte) (start int, bad error) {
	switch {
	case bytes.HasPrefix(first, []byte("\xff\xfe")), bytes.HasPrefix(first, []byte("\xfe\xff")), len(first) > 1 && (first[0] == 0) != (first[1] == 0):
		return 0, errors.New("it is UTF-16: save it as UTF-8")
	case bytes.HasPrefix(first, []byte("\x1f\x8b")), bytes.HasPrefix(first, []byte("PK\x03\x04")), bytes.HasPrefix(first, []byte("\x28\xb5\x2f\xfd")):
		return 0, errors.New("it is compressed: unpack it first")
	case bytes.IndexByte(first, 0) >= 0:
		return 0, errors.New("it is no text: one JSON object a line is wanted, or CSV")
	case bytes.HasPrefix(first, []byte("\ufeff")):
		start = len("\ufeff")
	}
	if bytes.HasPrefix(bytes.TrimSpace(first[start:]), []byte("[")) {
		return 0, errors.New("it is one JSON array: write one object a line, for example with: jq -c '.[]'")
	}
	return start, nil
}

// ReadExamples reads labelled examples: JSON Lines of {"id","text","labels"}, OpenAI chat fine-tuning lines, or CSV with a
// header that has a text column (the other columns but id are labels; an empty cell is null). name is used in problems and,
// by its .csv ending, to tell CSV. Every line that cannot be used is a Problem; the error is for what ends the reading.
func ReadExamples(r io.Reader, name string) ([]Example, []Problem, error) {
	reader := exampleReader{file: name, lineOfID: map[string]int{}}
	in := bufio.NewReaderSize(r, 1<<16)
	first, err := in.Peek(512)
	if err != nil && err != io.EOF {
		return nil, nil, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	start, err := Opening(first)
	if err != nil {
		return nil, nil, fmt.Errorf("%s cannot be read: %w", name, err)
	}
	_, _ = in.Discard(start) // it was peeked at
	if strings.HasSuffix(strings.ToLower(name), ".csv") {
		err = reader.readCSV(in)
	} else {
		err = reader.readLines(in)
	}
	if err != nil {
		return nil, reader.problems, err
	}
	if len(reader.examples) == 0 && len(reader.problems) == 0 {
		return nil, nil, fmt.Errorf(`%s is empty: expected one JSON object a line, such as {"id":"1","text":"where is my parcel","labels":{"category":"tracking"}}`, name)
	}
	return reader.examples, reader.problems, nil
}

type exampleReader struct {
	file     string
	examples []Example
	problems []Problem
	lineOfID map[string]int
}

func (x *exampleReader) readLines(lines *bufio.Reader) error {
	for number := 1; ; number++ {
		line, tooLong, err := readLine(lines)
		if err != nil && err != io.EOF {
			return fmt.Errorf("%s:%d: %w", x.file, number, err)
		}
		switch trimmed := bytes.TrimSpace(line); {
		case tooLong:
			x.problem(number, "the line is longer than 16 MB")
		case len(trimmed) > 0:
			x.addLine(number, trimmed)
		}
		if tooMany := x.tooManyProblems(); tooMany != nil {
			return tooMany
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine returns the next line without holding more than MaxLine of it.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		chunk, err := r.ReadSlice('\n')
		if len(line)+len(chunk) > MaxLine {
			tooLong, line = true, nil
		} else if !tooLong {
			line = append(line, chunk...)
		}
		if err != bufio.ErrBufferFull {
			return line, tooLong, err
		}
	}
}

type exampleLine struct {
	ID       json.RawMessage            `json:"id"`
	Text     *string                    `json:"text"`
	Labels   map[string]json.RawMessage `json:"labels"`
	Source   string                     `json:"source"`
	Messages []struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	} `json:"messages"`
}

func (x *exampleReader) addLine(number int, line []byte) {
	example, err := ParseLine(line, number)
	if err != nil {
		x.problem(number, err.Error())
		return
	}
	x.add(example)
}

// ParseLine reads one line of JSON, of either form that ReadExamples takes. The error says what is wrong with it.
func ParseLine(line []byte, number int) (Example, error) {
	if !utf8.Valid(line) {
		return Example{}, errors.New("not valid UTF-8: save the file as UTF-8")
	}
	var parsed exampleLine
	if err := json.Unmarshal(line, &parsed); err != nil {
		return Example{}, fmt.Errorf("not a JSON object with \"text\" and \"labels\": %w", err)
	}
	example := Example{Line: number, Source: parsed.Source, ID: idText(parsed.ID, number)}
	var err error
	switch {
	case len(parsed.Messages) > 0:
		example.Text, example.Labels, err = fromChat(parsed)
	case parsed.Text == nil:
		err = errors.New(`"text" is missing`)
	default:
		example.Text = *parsed.Text
		example.Labels, err = labelValues(parsed.Labels)
	}
	if err == nil && strings.TrimSpace(example.Text) == "" {
		err = errEmptyText
	}
	return example, err
}

var errEmptyText = errors.New("the text is empty")

func idText(raw json.RawMessage, line int) string {
	var id string
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return fmt.Sprintf("line-%d", line)
	case json.Unmarshal(raw, &id) == nil:
		return id
	default:
		return string(raw)
	}
}

func labelValues(raw map[string]json.RawMessage) (Output, error) {
	labels := make(Output, len(raw))
	for name, data := range raw {
		var v Value
		if err := v.UnmarshalJSON(data); err != nil {
			return nil, fmt.Errorf("label %q: %w", name, err)
		}
		labels[name] = v
	}
	return labels, nil
}

// fromChat reads an OpenAI fine-tuning line: the user's turns are the text, the last assistant turn is the answer, either a
// JSON object of labels or a bare label, which becomes the field "category".
func fromChat(line exampleLine) (string, Output, error) {
	var user []string
	answer, answered := "", false
	for _, m := range line.Messages {
		switch m.Role {
		case "user":
			user = append(user, m.Content)
		case "assistant":
			answer, answered = strings.TrimSpace(m.Content), true
		}
	}
	if len(user) == 0 || !answered {
		return "", nil, errors.New("a chat example needs a user message and an assistant message")
	}
	text := strings.Join(user, "\n")
	if !strings.HasPrefix(answer, "{") {
		return text, Output{"category": String(answer)}, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(answer), &raw); err != nil {
		return "", nil, fmt.Errorf("the assistant's answer is no JSON object: %w", err)
	}
	labels, err := labelValues(raw)
	return text, labels, err
}

func (x *exampleReader) readCSV(r io.Reader) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1
	header, err := rows.Read()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: the CSV header cannot be read: %w", x.file, err)
	}
	text, id := slices.Index(header, "text"), slices.Index(header, "id")
	if err := checkHeader(header, text); err != nil {
		return fmt.Errorf("%s:1: %w", x.file, err)
	}
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return nil
		}
		line := rowLine(rows, row, err)
		switch {
		case err != nil:
			x.problem(line, err.Error())
		case len(row) != len(header):
			x.problem(line, fmt.Sprintf("%d columns, the header has %d", len(row), len(header)))
		case !utf8.ValidString(strings.Join(row, "")):
			x.problem(line, "not valid UTF-8: save the file as UTF-8")
		default:
			x.add(csvExample(header, row, text, id, line))
		}
		if tooMany := x.tooManyProblems(); tooMany != nil {
			return tooMany
		}
	}
}

func checkHeader(header []string, text int) error {
	if text < 0 && len(header) == 1 && strings.ContainsAny(header[0], ";\t") {
		return errors.New("the columns are separated by semicolons or tabs: export the file with commas")
	}
	if text < 0 {
		return fmt.Errorf("the CSV header has no column named \"text\": it has %s; rename the one that holds the texts", strings.Join(header, ", "))
	}
	for i, name := range header {
		if slices.Contains(header[:i], name) {
			return fmt.Errorf("two columns of the CSV header are named %q: rename or remove one", name)
		}
	}
	return nil
}

// rowLine is the line a row starts on, also of one that cannot be parsed.
func rowLine(rows *csv.Reader, row []string, err error) int {
	var bad *csv.ParseError
	if errors.As(err, &bad) {
		return bad.StartLine
	}
	if len(row) == 0 {
		return 0
	}
	line, _ := rows.FieldPos(0)
	return line
}

func csvExample(header, row []string, text, id, line int) Example {
	example := Example{ID: fmt.Sprintf("line-%d", line), Text: row[text], Labels: Output{}, Line: line}
	if id >= 0 {
		example.ID = row[id]
	}
	for i, name := range header {
		if i == text || i == id {
			continue
		}
		if row[i] == "" {
			example.Labels[name] = Null
		} else {
			example.Labels[name] = String(row[i])
		}
	}
	return example
}

func (x *exampleReader) add(e Example) {
	if strings.TrimSpace(e.Text) == "" {
		x.problem(e.Line, errEmptyText.Error())
		return
	}
	if first, twice := x.lineOfID[e.ID]; twice {
		x.problem(e.Line, fmt.Sprintf("the id %q already stands on line %d", e.ID, first))
		return
	}
	x.lineOfID[e.ID] = e.Line
	x.examples = append(x.examples, e)
}

func (x *exampleReader) problem(line int, reason string) {
	x.problems = append(x.problems, Problem{File: x.file, Line: line, Reason: reason})
}

func (x *exampleReader) tooManyProblems() error {
	if len(x.problems) < maxProblems {
		return nil
	}
	return fmt.Errorf("%s: more than %d lines cannot be read, the first: %s", x.file, maxProblems, x.problems[0])
}
