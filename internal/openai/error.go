package openai

import "strconv"

// An Error is an error as the API writes it. The official clients choose their exception by Status and show Message.
type Error struct {
	Status  int // HTTP status
	Type    string
	Code    string
	Param   string
	Message string
}

func (e *Error) Error() string { return strconv.Itoa(e.Status) + " " + e.Type + ": " + e.Message }

// BadRequest is a 400 about one parameter, or about the whole body when param is empty.
func BadRequest(param, message string) *Error {
	return &Error{Status: 400, Type: "invalid_request_error", Param: param, Message: message}
}

// Append appends the error's body in the shape of an API.
func (e *Error) Append(dst []byte, api API) []byte {
	if api == Messages {
		return e.appendAnthropic(dst)
	}
	dst = append(dst, `{"error":`...)
	dst = e.appendObject(dst)
	return append(dst, '}')
}

// AppendEvent appends the error as the event that the official clients raise in the middle of a stream. A line break before
// it ends an event that was cut.
func (e *Error) AppendEvent(dst []byte, api API) []byte {
	switch api {
	case Messages:
		dst = append(dst, "\nevent: error\ndata: "...)
		return append(e.appendAnthropic(dst), "\n\n"...)
	case Responses:
		dst = append(dst, "\nevent: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":"...)
		dst = appendOrNull(dst, e.Code)
		dst = append(dst, `,"message":`...)
		dst = appendText(dst, e.Message)
		dst = append(dst, `,"param":null,"error":`...) // the error object is what the clients look for
		return append(e.appendObject(dst), "}\n\n"...)
	}
	dst = append(dst, "\ndata: {\"error\":"...)
	return append(e.appendObject(dst), "}\n\n"...)
}

func (e *Error) appendObject(dst []byte) []byte {
	dst = append(dst, `{"message":`...)
	dst = appendText(dst, e.Message)
	dst = append(dst, `,"type":`...)
	dst = appendText(dst, e.Type)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, e.Param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, e.Code)
	return append(dst, '}')
}

// anthropicTypes are the error types of that API by status; its clients go by the status.
var anthropicTypes = map[int]string{400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
	413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error"}

func (e *Error) appendAnthropic(dst []byte) []byte {
	kind := anthropicTypes[e.Status]
	switch {
	case kind == "" && e.Status < 500:
		kind = "invalid_request_error"
	case kind == "":
		kind = "api_error"
	}
	dst = append(dst, `{"type":"error","error":{"type":"`+kind+`","message":`...)
	dst = appendText(dst, e.Message)
	return append(dst, "}}"...)
}

func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendText(dst, s)
}
