package openai

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// split pushes a stream in pieces and returns the data of the events.
func split(stream string, pieces []int) (events []string) {
	var s Splitter
	add := func(e Event) { events = append(events, string(e.Data)) }
	for _, n := range pieces {
		n = min(n, len(stream))
		s.Push([]byte(stream[:n]), add)
		stream = stream[n:]
	}
	s.Push([]byte(stream), add)
	return events
}

func TestSplitterDoesNotCareHowBytesArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream strings.Builder
		var want []string
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "line end")
		for range rapid.IntRange(0, 8).Draw(t, "events") {
			data := rapid.StringMatching(`[a-z{}:"]{0,40}`).Draw(t, "data")
			want = append(want, data)
			stream.WriteString(rapid.SampledFrom([]string{"", ": comment" + end, "event: x" + end, "id: 7" + end}).Draw(t, "before"))
			stream.WriteString(rapid.SampledFrom([]string{"data: ", "data:"}).Draw(t, "prefix") + data + end + end)
		}
		pieces := rapid.SliceOfN(rapid.IntRange(0, 30), 0, 60).Draw(t, "pieces")
		got := split(stream.String(), pieces)
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Fatalf("got %q want %q", got, want)
		}
	})
}

func TestSplitterJoinsDataLines(t *testing.T) {
	got := split("data: {\"a\":\ndata: 1}\n\n", nil)
	if got[len(got)-1] != "{\"a\":\n1}" {
		t.Errorf("%q", got)
	}
}

func TestSplitterSkipsOverlongLinesAndGoesOn(t *testing.T) {
	stream := "data: " + strings.Repeat("x", 10<<20) + "\n\ndata: [DONE]\n\n"
	for _, size := range []int{1 << 10, 1 << 15, 1 << 24} {
		var s Splitter
		var got []string
		for rest := []byte(stream); len(rest) > 0; {
			n := min(size, len(rest))
			s.Push(rest[:n], func(e Event) {
				if len(e.Data) < 100 {
					got = append(got, string(e.Data))
				}
			})
			rest = rest[n:]
			if cap(s.line)+cap(s.data) > 3*maxEvent {
				t.Fatalf("keeps %d bytes", cap(s.line)+cap(s.data))
			}
		}
		if len(got) != 1 || !Done([]byte(got[0])) {
			t.Errorf("pieces of %d: %q", size, got)
		}
	}
}

// The offsets of events and unfinished lines are what lets the gateway hold the end mark back.
func TestSplitterSaysWhereEventsStand(t *testing.T) {
	stream := []byte("data: one\n\ndata: two\n\ndata: [DONE]\n\n")
	mark := bytes.Index(stream, []byte("data: [DONE]"))
	rapid.Check(t, func(t *rapid.T) {
		var s Splitter
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			start := len(stream) - len(rest)
			end := -1
			s.Push(rest[:n], func(e Event) {
				if Done(e.Data) {
					end = start + e.At
				}
			})
			if end >= 0 {
				if end != mark {
					t.Fatalf("end mark found at %d, it stands at %d", end, mark)
				}
				return
			}
			if sent := start + n - s.Unfinished(); sent > mark {
				t.Fatalf("released %d bytes, the end mark begins at %d", sent, mark)
			}
			rest = rest[n:]
		}
	})
}

func FuzzSplitter(f *testing.F) {
	f.Add("data: {\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", 3)
	f.Add("event: error\r\ndata:\r\n\r\n", 1)
	f.Fuzz(func(t *testing.T, stream string, size int) {
		size = max(1, size%64)
		pieces := make([]int, len(stream)/size+1)
		for i := range pieces {
			pieces[i] = size
		}
		whole, parts := split(stream, nil), split(stream, pieces)
		if strings.Join(whole, "\x00") != strings.Join(parts, "\x00") {
			t.Fatalf("whole %q, in pieces %q", whole, parts)
		}
		var m Meter
		for _, e := range whole {
			m.See([]byte(e))
		}
		if m.Billed && m.Usage.Check() != nil {
			t.Fatalf("believed %+v", m.Usage)
		}
	})
}
