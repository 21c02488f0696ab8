package openai

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deep JSON may nest; a real request stays below twenty.
const maxDepth = 256

// manyKeys is the size from which an object's keys are compared through a map instead of one by one.
const manyKeys = 16

// A cursor walks over JSON and checks it strictly on the way: RFC 8259 syntax, valid UTF-8 (checked by the caller once for
// the whole text), paired surrogates, numbers that fit a float64, no key twice in one object, no nesting beyond maxDepth.
// Two JSON parsers that disagree on any of these could read two different requests from the same bytes.
type cursor struct {
	data  []byte
	pos   int
	depth int
}

func (c *cursor) fail(what string) error {
	return fmt.Errorf("%s at byte %d", what, c.pos)
}

func (c *cursor) space() {
	for c.pos < len(c.data) {
		switch c.data[c.pos] {
		case ' ', '\n', '\r', '\t':
			c.pos++
		default:
			return
		}
	}
}

func (c *cursor) peek() byte {
	if c.pos < len(c.data) {
		return c.data[c.pos]
	}
	return 0
}

// document walks over one value and refuses anything but white space after it.
func (c *cursor) document(walk func() error) error {
	c.space()
	if err := walk(); err != nil {
		return err
	}
	c.space()
	if c.pos != len(c.data) {
		return c.fail("unexpected text after the JSON value")
	}
	return nil
}

// value walks over one value of any kind.
func (c *cursor) value() error {
	switch b := c.peek(); {
	case b == '"':
		return c.text()
	case b == '{':
		return c.object(nil)
	case b == '[':
		return c.array(nil)
	case b == '-' || (b >= '0' && b <= '9'):
		return c.number()
	case b == 't':
		return c.literal("true")
	case b == 'f':
		return c.literal("false")
	case b == 'n':
		return c.literal("null")
	case c.pos >= len(c.data):
		return c.fail("unexpected end of JSON")
	default:
		return c.fail("invalid JSON")
	}
}

func (c *cursor) literal(word string) error {
	if !bytes.HasPrefix(c.data[c.pos:], []byte(word)) {
		return c.fail("invalid JSON")
	}
	c.pos += len(word)
	return nil
}

// object walks over an object and calls member, if there is one, for each of its members with the cursor at the value;
// member must walk over that value. The key is the raw text between its quotes, or the decoded text where it has escapes.
func (c *cursor) object(member func(key []byte) error) error {
	if c.peek() != '{' {
		return c.fail("expected an object")
	}
	if c.depth++; c.depth > maxDepth {
		return c.fail("JSON nested too deep")
	}
	c.pos++
	c.space()
	if c.peek() == '}' {
		c.pos++
		c.depth--
		return nil
	}
	var seen keySet
	for {
		key, err := c.key()
		if err != nil {
			return err
		}
		if !seen.add(key) {
			return c.fail(fmt.Sprintf("the key %.40q stands twice in one object,", key))
		}
		if member == nil {
			err = c.value()
		} else {
			err = member(key)
		}
		if err != nil {
			return err
		}
		if more, err := c.next('}'); !more {
			return err
		}
		if c.peek() != '"' {
			return c.fail("expected a key")
		}
	}
}

func (c *cursor) key() ([]byte, error) {
	start := c.pos + 1
	if c.peek() != '"' {
		return nil, c.fail("expected a key")
	}
	if err := c.text(); err != nil {
		return nil, err
	}
	key := c.data[start : c.pos-1]
	if bytes.IndexByte(key, '\\') >= 0 {
		key = unescape(nil, key)
	}
	c.space()
	if c.peek() != ':' {
		return nil, c.fail("expected a colon")
	}
	c.pos++
	c.space()
	return key, nil
}

// array walks over an array and calls element, if there is one, with the cursor at each element.
func (c *cursor) array(element func() error) error {
	if c.peek() != '[' {
		return c.fail("expected an array")
	}
	if c.depth++; c.depth > maxDepth {
		return c.fail("JSON nested too deep")
	}
	c.pos++
	c.space()
	if c.peek() == ']' {
		c.pos++
		c.depth--
		return nil
	}
	for {
		var err error
		if element == nil {
			err = c.value()
		} else {
			err = element()
		}
		if err != nil {
			return err
		}
		if more, err := c.next(']'); !more {
			return err
		}
	}
}

// next walks over what follows a member or an element: a comma (more) or the closing bracket.
func (c *cursor) next(closing byte) (more bool, err error) {
	c.space()
	switch c.peek() {
	case ',':
		c.pos++
		c.space()
		return true, nil
	case closing:
		c.pos++
		c.depth--
		return false, nil
	}
	return false, c.fail("expected a comma or a closing bracket")
}

// text walks over a string.
func (c *cursor) text() error {
	d := c.data
	for i := c.pos + 1; i < len(d); i++ {
		b := d[i]
		if b == '"' {
			c.pos = i + 1
			return nil
		}
		if b == '\\' {
			width := escapeWidth(d[i:])
			if width == 0 {
				c.pos = i
				return c.fail("invalid escape in a string")
			}
			i += width - 1
		} else if b < 0x20 {
			c.pos = i
			return c.fail("control character in a string")
		}
	}
	c.pos = len(d)
	return c.fail("unterminated string")
}

// escapeWidth is the number of bytes of the escape that s begins with, 0 where it is none. A pair of surrogates is one
// escape; a surrogate alone is none.
func escapeWidth(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	r, ok := hex4(s[2:])
	if !ok {
		return 0
	}
	if !utf16.IsSurrogate(r) {
		return 6
	}
	if len(s) < 12 || s[6] != '\\' || s[7] != 'u' {
		return 0
	}
	low, ok := hex4(s[8:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return 0
	}
	return 12
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for _, b := range s[:4] {
		switch {
		case b >= '0' && b <= '9':
			r = r<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// unescape appends the decoded text of a string that text has walked over, without its quotes, to dst.
func unescape(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(dst, s[:i]...)
		s = s[i:]
		width := escapeWidth(s)
		switch s[1] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(s[2:])
			if width == 12 {
				low, _ := hex4(s[8:])
				r = utf16.DecodeRune(r, low)
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, s[1])
		}
		s = s[width:]
	}
}

// number walks over a number. One whose magnitude a float64 cannot hold is refused: parsers disagree about it.
func (c *cursor) number() error {
	start := c.pos
	if c.peek() == '-' {
		c.pos++
	}
	switch b := c.peek(); {
	case b == '0':
		c.pos++
	case b >= '1' && b <= '9':
		c.digits()
	default:
		return c.fail("invalid number")
	}
	exponent := false
	if c.peek() == '.' {
		c.pos++
		if c.digits() == 0 {
			return c.fail("invalid number")
		}
	}
	if b := c.peek(); b == 'e' || b == 'E' {
		exponent = true
		c.pos++
		if b := c.peek(); b == '+' || b == '-' {
			c.pos++
		}
		if c.digits() == 0 {
			return c.fail("invalid number")
		}
	}
	if exponent || c.pos-start > 300 {
		f, err := strconv.ParseFloat(string(c.data[start:c.pos]), 64)
		if err != nil || math.IsInf(f, 0) {
			return c.fail("number out of range")
		}
	}
	return nil
}

func (c *cursor) digits() int {
	start := c.pos
	for c.pos < len(c.data) && c.data[c.pos] >= '0' && c.data[c.pos] <= '9' {
		c.pos++
	}
	return c.pos - start
}

// A keySet finds repeated keys. Small objects, nearly all, are compared without allocating.
type keySet struct {
	small [manyKeys][]byte
	n     int
	large map[string]struct{}
}

func (k *keySet) add(key []byte) bool {
	if k.large != nil {
		_, seen := k.large[string(key)]
		k.large[string(key)] = struct{}{}
		return !seen
	}
	for _, old := range k.small[:k.n] {
		if bytes.Equal(old, key) {
			return false
		}
	}
	if k.n < manyKeys {
		k.small[k.n] = key
		k.n++
		return true
	}
	k.large = make(map[string]struct{}, 2*manyKeys)
	for _, old := range k.small {
		k.large[string(old)] = struct{}{}
	}
	k.large[string(key)] = struct{}{}
	return true
}

// span walks over one value and returns where it stands.
func (c *cursor) span() (Span, error) {
	start := c.pos
	err := c.value()
	return Span{start, c.pos}, err
}

// str walks over a string, or null, and returns the decoded text; ok is false for null.
func (c *cursor) str() (s string, ok bool, err error) {
	if c.peek() == 'n' {
		return "", false, c.literal("null")
	}
	if c.peek() != '"' {
		return "", false, errNoString
	}
	start := c.pos + 1
	if err := c.text(); err != nil {
		return "", false, err
	}
	raw := c.data[start : c.pos-1]
	if bytes.IndexByte(raw, '\\') >= 0 {
		raw = unescape(make([]byte, 0, len(raw)), raw)
	}
	return string(raw), true, nil
}

// boolean walks over true, false or null, which counts as false.
func (c *cursor) boolean() (bool, error) {
	switch c.peek() {
	case 't':
		return true, c.literal("true")
	case 'f':
		return false, c.literal("false")
	case 'n':
		return false, c.literal("null")
	}
	return false, errNoBool
}

// integer walks over a whole number, or null, which counts as 0.
func (c *cursor) integer() (int64, error) {
	if c.peek() == 'n' {
		return 0, c.literal("null")
	}
	start := c.pos
	if b := c.peek(); b != '-' && (b < '0' || b > '9') {
		return 0, errNoInteger
	}
	if err := c.number(); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(c.data[start:c.pos]), 10, 64)
	if err != nil {
		return 0, errNoInteger
	}
	return n, nil
}

var (
	errNoString  = errors.New("must be a string")
	errNoBool    = errors.New("must be true or false")
	errNoInteger = errors.New("must be a whole number")
)

// appendText appends s as a JSON string. Invalid UTF-8 becomes U+FFFD.
func appendText(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b >= 0x20 && b != '"' && b != '\\' && b < utf8.RuneSelf {
			i++
			continue
		}
		if b >= utf8.RuneSelf {
			r, width := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || width > 1 {
				i += width
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b == '\n':
			dst = append(dst, '\\', 'n')
		case b == '\t':
			dst = append(dst, '\\', 't')
		case b == '\r':
			dst = append(dst, '\\', 'r')
		case b < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
		default:
			dst = append(dst, "\uFFFD"...)
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
