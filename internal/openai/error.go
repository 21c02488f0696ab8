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

// AppendJSON appends the error's body.
func (e *Error) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"error":{"message":`...)
	dst = appendText(dst, e.Message)
	dst = append(dst, `,"type":`...)
	dst = appendText(dst, e.Type)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, e.Param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, e.Code)
	return append(dst, "}}"...)
}

func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendText(dst, s)
}
