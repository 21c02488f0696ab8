// This program drives the gateway with openai-go. It is a module of its own, so that the gateway does not depend on it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
)

type ticket struct {
	Text     string  `json:"text"`
	Category string  `json:"category"`
	OrderID  *string `json:"order_id"`
}

var data struct {
	Categories []string `json:"categories"`
	Tickets    []ticket `json:"tickets"`
}

// check prints one line: "ok NAME" or "FAIL NAME: reason".
func check(name string, body func() error) {
	if err := body(); err != nil {
		fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", " | "))
		return
	}
	fmt.Println("ok", name)
}

func main() {
	raw, err := os.ReadFile(os.Getenv("OCCAM_TICKETS"))
	if err == nil {
		err = json.Unmarshal(raw, &data)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	client := openai.NewClient(option.WithMaxRetries(0)) // key and address from OPENAI_API_KEY and OPENAI_BASE_URL
	check("chat", func() error { return chat(client) })
	check("stream", func() error { return stream(client) })
	check("structured output", func() error { return structured(client) })
	check("tools", func() error { return tools(client) })
	check("tools, streamed", func() error { return toolsStream(client) })
	check("decisions", func() error { return decisions(client) })
	for _, status := range []int{400, 401, 404, 429, 500, 503} {
		check(fmt.Sprint("error ", status), func() error { return failure(client, status) })
	}
	check("retry after a 503", func() error { return retry(client) })
	check("timeout", func() error { return timeout(client) })
	check("a cut stream is an error", func() error { return cutStream(client) })
	check("models", func() error { return models(client) })
	check("embeddings", func() error { return embeddings(client) })
	for _, model := range []string{"gpt-4o", "claude-haiku-4-5"} {
		check("responses, "+model, func() error { return response(client, model) })
		check("responses, streamed, "+model, func() error { return responseStream(client, model) })
	}
	check("cancelled", func() error { return cancelled(client) })
	check("translated: chat at Anthropic", func() error { return translated(client) })
	check("files and batches", func() error { return batch(client) })
}

func response(c openai.Client, model string) error {
	done, err := c.Responses.New(context.Background(), responses.ResponseNewParams{Model: model, Store: openai.Bool(false),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Say hello.")}})
	if err != nil {
		return err
	}
	if !strings.Contains(done.OutputText(), "simulated") || done.Usage.TotalTokens == 0 {
		return fmt.Errorf("reply %s", done.RawJSON())
	}
	return nil
}

func responseStream(c openai.Client, model string) error {
	events := c.Responses.NewStreaming(context.Background(), responses.ResponseNewParams{Model: model, Store: openai.Bool(false),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Say hello.")}})
	var text strings.Builder
	var final responses.Response
	for events.Next() {
		event := events.Current()
		if event.Type == "response.output_text.delta" {
			text.WriteString(event.Delta)
		}
		if event.Type == "response.completed" {
			final = event.Response
		}
	}
	if err := events.Err(); err != nil {
		return err
	}
	if text.String() != final.OutputText() || !strings.Contains(text.String(), "simulated") || final.Usage.OutputTokens == 0 {
		return fmt.Errorf("streamed %q, at the end %s", text.String(), final.RawJSON())
	}
	return nil
}

func cancelled(c openai.Client) error {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := c.Chat.Completions.New(ctx, ask("sim:hang", "x")); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("error %v, want a cancelled context", err)
	}
	return nil
}

func translated(c openai.Client) error {
	done, err := c.Chat.Completions.New(context.Background(), ask("claude-haiku-4-5", "Say hello."))
	if err != nil {
		return err
	}
	if !strings.Contains(done.Choices[0].Message.Content, "simulated") || done.Usage.TotalTokens == 0 {
		return fmt.Errorf("reply %s", done.RawJSON())
	}
	return nil
}

func batch(c openai.Client) error {
	ctx := context.Background()
	var lines strings.Builder
	for i, t := range data.Tickets {
		request := ask("gpt-4o", t.Text)
		request.ResponseFormat = ticketFormat()
		line, err := json.Marshal(map[string]any{"custom_id": fmt.Sprint("t-", i), "method": "POST", "url": "/v1/chat/completions", "body": request})
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	file, err := c.Files.New(ctx, openai.FileNewParams{Purpose: openai.FilePurposeBatch,
		File: openai.File(strings.NewReader(lines.String()), "backfill.jsonl", "application/jsonl")})
	if err != nil {
		return err
	}
	b, err := c.Batches.New(ctx, openai.BatchNewParams{InputFileID: file.ID, Endpoint: openai.BatchNewParamsEndpointV1ChatCompletions,
		CompletionWindow: openai.BatchNewParamsCompletionWindow24h})
	for range 200 {
		if err != nil || b.Status == openai.BatchStatusCompleted || b.Status == openai.BatchStatusFailed {
			break
		}
		time.Sleep(100 * time.Millisecond)
		b, err = c.Batches.Get(ctx, b.ID)
	}
	if err != nil {
		return err
	}
	if b.Status != openai.BatchStatusCompleted || int(b.RequestCounts.Completed) != len(data.Tickets) {
		return fmt.Errorf("batch %s", b.RawJSON())
	}
	content, err := c.Files.Content(ctx, b.OutputFileID)
	if err != nil {
		return err
	}
	defer content.Body.Close()
	results := json.NewDecoder(content.Body)
	seen := map[string]bool{}
	for results.More() {
		var one struct {
			CustomID string `json:"custom_id"`
			Response struct {
				StatusCode int `json:"status_code"`
			}
		}
		if err := results.Decode(&one); err != nil || one.Response.StatusCode != 200 || seen[one.CustomID] {
			return fmt.Errorf("result %+v: %v", one, err)
		}
		seen[one.CustomID] = true
	}
	if len(seen) != len(data.Tickets) {
		return fmt.Errorf("%d results", len(seen))
	}
	return nil
}

func ask(model, text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}}
}

func chat(c openai.Client) error {
	var reply *http.Response
	done, err := c.Chat.Completions.New(context.Background(), ask("gpt-4o", "Say hello."), option.WithResponseInto(&reply))
	if err != nil {
		return err
	}
	if !strings.Contains(done.Choices[0].Message.Content, "simulated") || done.Usage.TotalTokens != done.Usage.PromptTokens+done.Usage.CompletionTokens ||
		reply.Header.Get("X-Occam-Request-Id") == "" {
		return fmt.Errorf("reply %s, headers %v", done.RawJSON(), reply.Header)
	}
	return nil
}

func stream(c openai.Client) error {
	request := ask("gpt-4o", "Say hello.")
	request.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	events := c.Chat.Completions.NewStreaming(context.Background(), request)
	whole := openai.ChatCompletionAccumulator{}
	for events.Next() {
		if !whole.AddChunk(events.Current()) {
			return fmt.Errorf("the accumulator refused chunk %s", events.Current().RawJSON())
		}
	}
	if err := events.Err(); err != nil {
		return err
	}
	if !strings.Contains(whole.Choices[0].Message.Content, "simulated") || whole.Usage.CompletionTokens == 0 {
		return fmt.Errorf("stream %+v", whole.ChatCompletion)
	}
	return nil
}

func ticketFormat() openai.ChatCompletionNewParamsResponseFormatUnion {
	schema := map[string]any{"type": "object", "additionalProperties": false, "required": []string{"category", "order_id"},
		"properties": map[string]any{"category": map[string]any{"type": "string", "enum": data.Categories},
			"order_id": map[string]any{"type": []string{"string", "null"}}}}
	return openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{Name: "ticket", Schema: schema, Strict: openai.Bool(true)}}}
}

func structured(c openai.Client) error {
	local, right := 0, 0
	for _, t := range data.Tickets {
		request := ask("gpt-4o", t.Text)
		request.ResponseFormat = ticketFormat()
		var reply *http.Response
		done, err := c.Chat.Completions.New(context.Background(), request, option.WithResponseInto(&reply))
		if err != nil {
			return err
		}
		var got ticket
		if err := json.Unmarshal([]byte(done.Choices[0].Message.Content), &got); err != nil || !slices.Contains(data.Categories, got.Category) {
			return fmt.Errorf("answer %s: %v", done.Choices[0].Message.Content, err)
		}
		if strings.Contains(reply.Header.Get("X-Occam-Model"), "@") {
			local++
		}
		if got.Category == t.Category {
			right++
		}
	}
	if n := len(data.Tickets); local == 0 || local == n || right < n*9/10 {
		return fmt.Errorf("of %d: %d answered by the specialist, %d right", n, local, right)
	}
	return nil
}

func askTool() openai.ChatCompletionNewParams {
	request := ask("gpt-4o", "Find my order.")
	request.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{Name: "find_order",
		Parameters: shared.FunctionParameters{"type": "object", "properties": map[string]any{"id": map[string]any{"type": "string"}}}})}
	return request
}

func tools(c openai.Client) error {
	done, err := c.Chat.Completions.New(context.Background(), askTool())
	if err != nil {
		return err
	}
	return toolCall(done)
}

func toolsStream(c openai.Client) error {
	events := c.Chat.Completions.NewStreaming(context.Background(), askTool())
	whole := openai.ChatCompletionAccumulator{}
	finished := 0
	for events.Next() {
		if !whole.AddChunk(events.Current()) {
			return fmt.Errorf("the accumulator refused chunk %s", events.Current().RawJSON())
		}
		if _, ok := whole.JustFinishedToolCall(); ok {
			finished++
		}
	}
	if err := events.Err(); err != nil {
		return err
	}
	if finished != 1 {
		return fmt.Errorf("%d tool calls were finished", finished)
	}
	return toolCall(&whole.ChatCompletion)
}

// decisions asks the specialist, which answers what its certificate lets it; the provider makes none.
func decisions(c openai.Client) error {
	question := openai.DecisionNewParamsQuestionChoice{Name: openai.String("category"),
		Instructions: openai.DecisionNewParamsQuestionChoiceInstructionsUnion{OfString: openai.String("Which is it?")}}
	for _, category := range data.Categories {
		question.Choices = append(question.Choices, openai.DecisionNewParamsQuestionChoiceChoice{
			Value: openai.DecisionNewParamsQuestionChoiceChoiceValueUnion{OfString: openai.String(category)}})
	}
	answered, right := 0, 0
	for _, t := range data.Tickets {
		d, err := c.Decisions.New(context.Background(), openai.DecisionNewParams{Model: "decider",
			Input:     openai.DecisionNewParamsInputUnion{OfString: openai.String(t.Text)},
			Questions: []openai.DecisionNewParamsQuestionUnion{{OfChoice: &question}}})
		var api *openai.Error
		if errors.As(err, &api) && api.StatusCode == http.StatusNotFound {
			continue
		}
		if err != nil {
			return err
		}
		choice := d.Answers[0].AsChoice()
		sum := 0.0
		for _, p := range choice.Probabilities {
			sum += p.Probability
		}
		if answered++; sum < 1-1e-6 || sum > 1+1e-6 {
			return fmt.Errorf("the probabilities of %s add up to %g", d.RawJSON(), sum)
		}
		if choice.Choice.AsString() == t.Category {
			right++
		}
	}
	if answered == 0 || right < answered*9/10 {
		return fmt.Errorf("%d decided, %d right", answered, right)
	}
	return nil
}

func toolCall(done *openai.ChatCompletion) error {
	var arguments struct{ ID string }
	calls := done.Choices[0].Message.ToolCalls
	if len(calls) != 1 || calls[0].Function.Name != "find_order" || json.Unmarshal([]byte(calls[0].Function.Arguments), &arguments) != nil ||
		arguments.ID == "" {
		return fmt.Errorf("reply %s", done.RawJSON())
	}
	return nil
}

func failure(c openai.Client, status int) error {
	_, err := c.Chat.Completions.New(context.Background(), ask(fmt.Sprintf("sim:status=%d", status), "x"))
	var api *openai.Error
	if !errors.As(err, &api) || api.StatusCode != status || api.Message == "" {
		return fmt.Errorf("error %v, want an API error with status %d", err, status)
	}
	return nil
}

func retry(c openai.Client) error {
	_, err := c.Chat.Completions.New(context.Background(), ask("sim:status=503,first=1,after=3", "x"), option.WithMaxRetries(2))
	return err
}

func timeout(c openai.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	if _, err := c.Chat.Completions.New(ctx, ask("sim:hang", "x")); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("error %v, want the deadline", err)
	}
	return nil
}

func cutStream(c openai.Client) error {
	events := c.Chat.Completions.NewStreaming(context.Background(), ask("sim:reset-mid-body,after=4", "x"))
	for events.Next() {
	}
	if events.Err() == nil {
		return errors.New("the stream ended as if it were whole")
	}
	return nil
}

func models(c openai.Client) error {
	list, err := c.Models.List(context.Background())
	if err != nil {
		return err
	}
	for _, m := range list.Data {
		if m.ID == "gpt-4o" {
			return nil
		}
	}
	return fmt.Errorf("no gpt-4o in %s", list.RawJSON())
}

func embeddings(c openai.Client) error {
	done, err := c.Embeddings.New(context.Background(), openai.EmbeddingNewParams{Model: "text-embedding-3-small",
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a", "b"}}})
	if err != nil {
		return err
	}
	if len(done.Data) != 2 || len(done.Data[0].Embedding) == 0 {
		return fmt.Errorf("reply %s", done.RawJSON())
	}
	return nil
}
