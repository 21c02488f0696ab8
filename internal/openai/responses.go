package openai

import "strconv"

// responsesMember reads one member of a POST /v1/responses request.
func (r *Request) responsesMember(c *cursor, key string) (err error) {
	start := c.pos
	switch key {
	case "input":
		if c.peek() == '[' {
			r.messages, err = r.turns(c)
			return err
		}
		_, ok, err := c.str()
		if ok {
			r.messages = Span{start, c.pos}
		}
		return err
	case "instructions":
		r.system, err = c.span()
	case "text":
		err = r.formatHolder(c, "")
	default:
		_, err = r.shape(c, key)
	}
	return err
}

// formatHolder reads the member that holds the answer's format beside other things.
func (r *Request) formatHolder(c *cursor, within string) error {
	start := c.pos
	if c.peek() != '{' {
		s, err := c.span()
		r.formatIn = s
		return err
	}
	err := c.object(func(key []byte) error {
		if string(key) != "format" {
			return c.value()
		}
		at := c.pos
		err := r.formatMember(c, within)
		r.format = Span{at, c.pos}
		return err
	})
	r.formatIn = Span{start, c.pos}
	return err
}

// zeroTokens is what an answer of this process bills in the shape of responses.
const zeroTokens = `{"input_tokens":0,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":0,` +
	`"output_tokens_details":{"reasoning_tokens":0},"total_tokens":0}`

// appendResponse appends the answer as a response object. A response that is not done has neither output nor usage.
func (a *Answer) appendResponse(dst []byte, done bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendText(dst, "resp_"+a.ID)
	dst = append(dst, `,"object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, a.Created, 10)
	status := "in_progress"
	if done {
		status = "completed"
	}
	dst = append(dst, `,"status":"`+status+`","background":false,"error":null,"incomplete_details":null,"instructions":null,`+
		`"max_output_tokens":null,"max_tool_calls":null,"model":`...)
	dst = appendText(dst, a.Model)
	dst = append(dst, `,"output":[`...)
	if done {
		dst = a.appendItem(dst, true)
	}
	dst = append(dst, `],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":null,"summary":null},`+
		`"service_tier":"default","store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],`+
		`"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":`...)
	if done {
		dst = append(dst, zeroTokens...)
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, `,"user":null,"metadata":{}}`...)
}

func (a *Answer) itemID() string { return "msg_" + a.ID }

// appendItem appends the message that the answer is made of.
func (a *Answer) appendItem(dst []byte, done bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendText(dst, a.itemID())
	if !done {
		return append(dst, `,"type":"message","status":"in_progress","content":[],"role":"assistant"}`...)
	}
	dst = append(dst, `,"type":"message","status":"completed","content":[`...)
	dst = a.appendPart(dst, a.text())
	return append(dst, `],"role":"assistant"}`...)
}

func (a *Answer) appendPart(dst []byte, text string) []byte {
	if a.Refusal != "" {
		dst = append(dst, `{"type":"refusal","refusal":`...)
		return append(appendText(dst, text), '}')
	}
	dst = append(dst, `{"type":"output_text","annotations":[],"logprobs":[],"text":`...)
	return append(appendText(dst, text), '}')
}

func (a *Answer) text() string {
	if a.Refusal != "" {
		return a.Refusal
	}
	return a.Content
}

// appendResponseStream appends the answer as the event stream of a response.
func (a *Answer) appendResponseStream(dst []byte) []byte {
	n := 0
	event := func(kind string, rest func([]byte) []byte) {
		dst = append(dst, "event: "+kind+"\ndata: {\"type\":\""+kind+"\",\"sequence_number\":"+strconv.Itoa(n)+","...)
		n++
		dst = append(rest(dst), "}\n\n"...)
	}
	response := func(done bool) func([]byte) []byte {
		return func(dst []byte) []byte { return a.appendResponse(append(dst, `"response":`...), done) }
	}
	item := func(done bool) func([]byte) []byte {
		return func(dst []byte) []byte { return a.appendItem(append(dst, `"output_index":0,"item":`...), done) }
	}
	inItem := func(rest func([]byte) []byte) func([]byte) []byte {
		return func(dst []byte) []byte {
			dst = appendText(append(dst, `"item_id":`...), a.itemID())
			return rest(append(dst, `,"output_index":0,"content_index":0,`...))
		}
	}
	part := func(text string) func([]byte) []byte {
		return inItem(func(dst []byte) []byte { return a.appendPart(append(dst, `"part":`...), text) })
	}
	kind, member, logprobs := "output_text", "text", `"logprobs":[],`
	if a.Refusal != "" {
		kind, member, logprobs = "refusal", "refusal", ""
	}
	text := func(member string) func([]byte) []byte {
		return inItem(func(dst []byte) []byte { return appendText(append(dst, logprobs+`"`+member+`":`...), a.text()) })
	}
	event("response.created", response(false))
	event("response.in_progress", response(false))
	event("response.output_item.added", item(false))
	event("response.content_part.added", part(""))
	event("response."+kind+".delta", text("delta"))
	event("response."+kind+".done", text(member))
	event("response.content_part.done", part(a.text()))
	event("response.output_item.done", item(true))
	event("response.completed", response(true))
	return dst
}
