package openai

import "bytes"

// maxEvent bounds how much of one event a Splitter keeps. A longer event passes through it but its data is not looked at.
const maxEvent = 64 << 10

// A Splitter finds server-sent events in a stream of bytes that is pushed through it in pieces of any size. It changes
// nothing: it says what it saw and how much may go on to the client.
type Splitter struct {
	Max      int    // most bytes of one event that are kept; 0: maxEvent
	line     []byte // the unfinished line, at most so many bytes of it
	data     []byte // data of the unfinished event, when it has more than one data line
	lines    int    // data lines of the unfinished event
	event    string // its type
	overlong bool   // the unfinished line or event is longer than maxEvent
}

// An Event is one server-sent event. Data is valid until the next Push.
type Event struct {
	Type string // "" where the stream names none
	Data []byte
	At   int // offset in the pushed bytes of the event's last data line; negative when it began in an earlier push
}

// Push takes the next bytes of the stream and calls event for every event that they complete. An event is complete with its
// last data line, not with the blank line after it, as soon as that line is a whole JSON value or "[DONE]".
func (s *Splitter) Push(p []byte, event func(Event)) {
	at := 0
	for {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			s.keep(p[at:])
			return
		}
		line, start := p[at:at+i], at
		if len(s.line) > 0 || s.overlong {
			start = at - len(s.line)
			s.keep(line)
			line = s.line
		}
		s.overlong = s.overlong || len(line) > s.most()
		s.endLine(bytes.TrimSuffix(line, []byte("\r")), start, event)
		s.line = s.line[:0]
		at += i + 1
	}
}

func (s *Splitter) most() int {
	if s.Max > 0 {
		return s.Max
	}
	return maxEvent
}

func (s *Splitter) keep(p []byte) {
	if len(s.line)+len(p) > s.most() {
		s.overlong = true
		return
	}
	s.line = append(s.line, p...)
}

func (s *Splitter) endLine(line []byte, at int, event func(Event)) {
	switch {
	case s.overlong:
		s.overlong = false
		s.data, s.lines = s.data[:0], 0
	case len(line) == 0:
		if s.lines > 1 {
			event(Event{s.event, s.data, at})
		}
		s.data, s.lines, s.event = s.data[:0], 0, ""
	case bytes.HasPrefix(line, []byte("data:")):
		s.dataLine(bytes.TrimPrefix(line[len("data:"):], []byte(" ")), at, event)
	case bytes.HasPrefix(line, []byte("event:")):
		s.event = string(bytes.TrimPrefix(line[len("event:"):], []byte(" ")))
	}
}

// dataLine handles the usual case, one data line an event, without copying.
func (s *Splitter) dataLine(data []byte, at int, event func(Event)) {
	s.lines++
	if s.lines == 1 {
		event(Event{s.event, data, at})
		s.data = append(s.data[:0], data...)
		return
	}
	if len(s.data)+len(data) < s.most() {
		s.data = append(append(s.data, '\n'), data...)
	}
}

// Unfinished returns how many of the last bytes pushed belong to a line that is not complete: whoever forwards the stream
// keeps them until more has come, so that a line is passed on whole or not at all. 0 in the middle of an overlong line.
func (s *Splitter) Unfinished() int {
	if s.overlong {
		return 0
	}
	return len(s.line)
}

// Rest ends the stream: it treats an unfinished last line as complete, for servers that forget the final newline.
func (s *Splitter) Rest(event func(Event)) {
	if len(s.line) > 0 && !s.overlong {
		s.endLine(bytes.TrimSuffix(s.line, []byte("\r")), -1, event)
	}
}

// Done reports whether data is the end mark of a stream.
func Done(data []byte) bool { return string(bytes.TrimSpace(data)) == "[DONE]" }

// AppendEvent appends data as one server-sent event. data must hold no newline.
func AppendEvent(dst, data []byte) []byte {
	dst = append(dst, "data: "...)
	dst = append(dst, data...)
	return append(dst, "\n\n"...)
}

// A Stripper takes out of a stream of chunks what an app did not ask for when the gateway asked for usage in its place: the
// usage chunk, and the "usage":null of the other chunks.
type Stripper struct {
	dropping bool // the blank line after a dropped chunk is dropped too
}

// Append appends whole lines of the stream to dst without what is to be taken out.
func (s *Stripper) Append(dst, lines []byte) []byte {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n') + 1
		if end == 0 {
			end = len(lines)
		}
		line := lines[:end]
		lines = lines[end:]
		data, isData := bytes.CutPrefix(line, []byte("data:"))
		switch {
		case s.dropping && len(bytes.TrimSpace(line)) == 0:
			s.dropping = false
		case isData && usageIsObject(data) && onlyUsage(data):
			s.dropping = true
		case isData && bytes.Contains(data, nullUsage):
			dst = appendWithoutNull(dst, line)
		default:
			dst = append(dst, line...)
		}
	}
	return dst
}

var nullUsage = []byte(`,"usage":null`)

// onlyUsage reports whether a chunk holds nothing but usage.
func onlyUsage(data []byte) bool {
	r, ok := ParseReply(bytes.TrimSpace(data))
	return ok && r.Choices == 0 && !r.Error
}

// appendWithoutNull appends a data line without its member "usage":null. A text that looks like it has its quotes escaped.
func appendWithoutNull(dst, line []byte) []byte {
	i := bytes.LastIndex(line, nullUsage)
	dst = append(dst, line[:i]...)
	return append(dst, line[i+len(nullUsage):]...)
}
