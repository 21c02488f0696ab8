package openai

// anthropicMember reads one member of a POST /v1/messages request.
func (r *Request) anthropicMember(c *cursor, key string) (err error) {
	switch key {
	case "messages":
		r.messages, err = r.turns(c)
	case "system":
		r.system, err = c.span()
	case "output_config":
		err = r.formatHolder(c, "")
	case "output_format": // as the beta wrote it
		err = r.formatMember(c, "")
	default:
		_, err = r.shape(c, key)
	}
	return err
}

// zeroMessageUsage is what an answer of this process bills in Anthropic's shape.
const zeroMessageUsage = `{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}`

// appendMessage appends the answer as an Anthropic message.
func (a *Answer) appendMessage(dst []byte, done bool) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendText(dst, "msg_"+a.ID)
	dst = append(dst, `,"type":"message","role":"assistant","model":`...)
	dst = appendText(dst, a.Model)
	if !done {
		return append(dst, `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":`+zeroMessageUsage+"}"...)
	}
	dst = append(dst, `,"content":[{"type":"text","text":`...)
	dst = appendText(dst, a.text())
	return append(dst, `}],"stop_reason":"`+a.stopReason()+`","stop_sequence":null,"usage":`+zeroMessageUsage+"}"...)
}

func (a *Answer) stopReason() string {
	if a.Refusal != "" {
		return "refusal"
	}
	return "end_turn"
}

// appendMessageStream appends the answer as the event stream of an Anthropic message.
func (a *Answer) appendMessageStream(dst []byte) []byte {
	event := func(kind, rest string) { dst = appendTyped(dst, kind, rest) }
	event("message_start", `"message":`+string(a.appendMessage(nil, false)))
	event("content_block_start", `"index":0,"content_block":{"type":"text","text":""}`)
	event("content_block_delta", `"index":0,"delta":{"type":"text_delta","text":`+string(appendText(nil, a.text()))+`}`)
	event("content_block_stop", `"index":0`)
	event("message_delta", `"delta":{"stop_reason":"`+a.stopReason()+`","stop_sequence":null},"usage":{"output_tokens":0}`)
	event("message_stop", "")
	return dst
}

// appendTyped appends an event whose data repeats its type.
func appendTyped(dst []byte, kind, rest string) []byte {
	dst = append(dst, "event: "+kind+"\ndata: {\"type\":\""+kind+"\""...)
	if rest != "" {
		dst = append(append(dst, ','), rest...)
	}
	return append(dst, "}\n\n"...)
}
