package specialist

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"occam/internal/task"
)

// turns is a conversation of several user turns: the category stands in the first, the order in the second, small talk follows.
func turns(i int, topic, order string) []task.Message {
	opening := map[string]string{"refund": "I want my money back", "delivery": "my parcel has not come", "login": "my password does not work"}[topic]
	talk := []string{"yes please", "ok thank you", "one moment", "sure, that is right"}
	return []task.Message{
		{Role: "system", Text: "Classify the conversation."},
		{Role: "user", Text: fmt.Sprintf("hello %d, %s", i, opening)}, {Role: "assistant", Text: "What is your order number?"},
		{Role: "user", Text: "it is " + order}, {Role: "assistant", Text: "Anything else about a refund, a delivery or a login?"},
		{Role: "user", Text: talk[i%4]}, {Role: "assistant", Text: "Are you still there?"}, {Role: "user", Text: talk[i/4%4]},
	}
}

// TestConversations learns from chat lines as task.ReadExamples reads them and answers requests as the gateway's recogniser reads
// them: both must see the same text, and the answer depends on turns before the last.
func TestConversations(t *testing.T) {
	fields := []task.Field{{Name: "category", Kind: task.Category, Values: []string{"refund", "delivery", "login"}}, {Name: "order", Kind: task.Span, Nullable: true}}
	var lines strings.Builder
	for i := range 150 {
		topic, order := fields[0].Values[i%3], fmt.Sprintf("%06d", 104729*(i+1)%1000000)
		type message struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		}
		var messages []message
		for _, m := range turns(i, topic, order) {
			messages = append(messages, message{m.Role, m.Text})
		}
		messages = append(messages, message{"assistant", fmt.Sprintf(`{"category":%q,"order":%q}`, topic, order)})
		line, err := json.Marshal(map[string]any{"messages": messages})
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	examples, problems, err := task.ReadExamples(strings.NewReader(lines.String()), "chat.jsonl")
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	m := train(t, fields, examples, Options{})
	recogniser := task.NewRecognizer([]*task.Task{{Name: "chats", Fields: fields}})
	read := func(messages []task.Message) string {
		match, ok := recogniser.Recognize(task.Query{Model: "chats", Messages: messages})
		if !ok || !match.Readable {
			t.Fatalf("the request is not read: %+v", match)
		}
		return match.Input
	}
	if got := read(turns(0, "refund", fmt.Sprintf("%06d", 104729))); got != examples[0].Text {
		t.Fatalf("training reads %q, the gateway %q", examples[0].Text, got)
	}
	wrong, deaf := 0, 0
	var p task.Prediction
	for i := range 90 {
		topic, order := fields[0].Values[i%3], fmt.Sprintf("%06d", 7919*(i+977)%1000000)
		messages := turns(i+1000, topic, order)
		if m.Predict(read(messages), &p); p.Values[0].Text() != topic || p.Values[1].Text() != order {
			wrong++
		}
		if m.Predict(read(messages[len(messages)-1:]), &p); p.Values[0].Text() != topic || p.Values[1].Text() != order {
			deaf++
		}
	}
	if wrong > 2 {
		t.Errorf("%d of 90 conversations are wrong", wrong)
	}
	if deaf != 90 {
		t.Errorf("%d of 90 are wrong with the last turn alone: the earlier turns do not matter to this test", deaf)
	}
}
