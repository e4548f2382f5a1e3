package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Errors of the JSON reader. It accepts exactly RFC 8259 and nothing around it,
// and never changes a byte: what it returns are parts of what it was given.
var (
	errSyntax = errors.New("is not valid JSON")
	errUTF8   = errors.New("is not valid UTF-8")
	errDepth  = fmt.Errorf("is nested deeper than %d levels", MaxNesting)
	errObject = errors.New("must be a JSON object")
	errArray  = errors.New("must be a JSON array")
	errString = errors.New("must be a string")
)

// FieldError names the field of a request or frame that was wrong, as a path
// such as notifications[3].userId, and says what it must be. An empty Field
// means the whole text.
type FieldError struct {
	Field   string
	Problem string
	Size    bool // too large rather than wrong: HTTP 413 instead of 400
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return "the body " + e.Problem
	}
	return e.Field + " " + e.Problem
}

// CheckJSON reports why data is not one JSON text (RFC 8259) in valid UTF-8,
// nested at most MaxNesting levels; nil if it is. It allocates nothing.
func CheckJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errUTF8
	}
	end, err := scanValue(data, skipSpace(data, 0), MaxNesting)
	if err != nil {
		return err
	}
	if skipSpace(data, end) != len(data) {
		return errSyntax
	}
	return nil
}

// members calls f for each member of the JSON object that data holds, in order,
// with the member's decoded name and the raw bytes of its value. Values are
// only scanned: f must validate those that it uses. data must be valid UTF-8.
func members(data []byte, depth int, f func(name string, value []byte) error) error {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		if _, err := scanValue(data, i, depth); err != nil {
			return err
		}
		return errObject
	}
	i = skipSpace(data, i+1)
	for first := true; ; first = false {
		if i < len(data) && data[i] == '}' && first {
			return onlySpace(data, i+1)
		}
		nameEnd, err := scanString(data, i)
		if err != nil {
			return err
		}
		name, err := decodeString(data[i:nameEnd])
		if err != nil {
			return err
		}
		i = skipSpace(data, nameEnd)
		if i >= len(data) || data[i] != ':' {
			return errSyntax
		}
		start := skipSpace(data, i+1)
		end, err := scanValue(data, start, depth-1)
		if err != nil {
			return err
		}
		if err := f(name, data[start:end]); err != nil {
			return err
		}
		if i, err = nextItem(data, end, '}'); err != nil || i < 0 {
			return finish(data, end, err)
		}
	}
}

// elements calls f for each element of the JSON array that data holds, in order.
func elements(data []byte, depth int, f func(index int, value []byte) error) error {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '[' {
		return errArray
	}
	i = skipSpace(data, i+1)
	if i < len(data) && data[i] == ']' {
		return onlySpace(data, i+1)
	}
	for n := 0; ; n++ {
		end, err := scanValue(data, i, depth-1)
		if err != nil {
			return err
		}
		if err := f(n, data[i:end]); err != nil {
			return err
		}
		if i, err = nextItem(data, end, ']'); err != nil || i < 0 {
			return finish(data, end, err)
		}
	}
}

// nextItem steps over the comma after an item that ended at end and returns
// where the next one starts, or -1 if the byte there is closing.
func nextItem(data []byte, end int, closing byte) (int, error) {
	i := skipSpace(data, end)
	switch {
	case i >= len(data):
		return 0, errSyntax
	case data[i] == closing:
		return -1, nil
	case data[i] == ',':
		return skipSpace(data, i+1), nil
	}
	return 0, errSyntax
}

// finish ends an object or array whose last item ended at end.
func finish(data []byte, end int, err error) error {
	if err != nil {
		return err
	}
	return onlySpace(data, skipSpace(data, end)+1)
}

func onlySpace(data []byte, i int) error {
	if skipSpace(data, i) != len(data) {
		return errSyntax
	}
	return nil
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// scanValue returns where the JSON value that starts at i ends. depth is how
// many levels of nesting are left.
func scanValue(data []byte, i, depth int) (int, error) {
	if i >= len(data) {
		return 0, errSyntax
	}
	switch c := data[i]; c {
	case '"':
		return scanString(data, i)
	case '{', '[':
		if depth == 0 {
			return 0, errDepth
		}
		return scanComposite(data, i, depth-1)
	case 't':
		return scanWord(data, i, "true")
	case 'f':
		return scanWord(data, i, "false")
	case 'n':
		return scanWord(data, i, "null")
	default:
		return scanNumber(data, i)
	}
}

func scanComposite(data []byte, i, depth int) (int, error) {
	object, closing := data[i] == '{', data[i]+2 // '}' and ']' stand two after '{' and '['
	i = skipSpace(data, i+1)
	if i < len(data) && data[i] == closing {
		return i + 1, nil
	}
	for {
		var err error
		if object {
			if i, err = scanString(data, i); err != nil {
				return 0, err
			}
			if i = skipSpace(data, i); i >= len(data) || data[i] != ':' {
				return 0, errSyntax
			}
			i = skipSpace(data, i+1)
		}
		end, err := scanValue(data, i, depth)
		if err != nil {
			return 0, err
		}
		if i, err = nextItem(data, end, closing); err != nil {
			return 0, err
		}
		if i < 0 {
			return skipSpace(data, end) + 1, nil
		}
	}
}

func scanWord(data []byte, i int, word string) (int, error) {
	if len(data)-i < len(word) || string(data[i:i+len(word)]) != word {
		return 0, errSyntax
	}
	return i + len(word), nil
}

func scanString(data []byte, i int) (int, error) {
	if i >= len(data) || data[i] != '"' {
		return 0, errSyntax
	}
	for i++; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			return i + 1, nil
		case c < ' ':
			return 0, errSyntax
		case c == '\\':
			if i++; i >= len(data) {
				return 0, errSyntax
			}
			switch data[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if len(data)-i < 5 || !isHex(data[i+1:i+5]) {
					return 0, errSyntax
				}
				i += 4
			default:
				return 0, errSyntax
			}
		}
	}
	return 0, errSyntax
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

func scanNumber(data []byte, i int) (int, error) {
	if i < len(data) && data[i] == '-' {
		i++
	}
	switch {
	case i < len(data) && data[i] == '0':
		i++
	case i < len(data) && data[i] >= '1' && data[i] <= '9':
		i = skipDigits(data, i)
	default:
		return 0, errSyntax
	}
	if i < len(data) && data[i] == '.' {
		j := skipDigits(data, i+1)
		if j == i+1 {
			return 0, errSyntax
		}
		i = j
	}
	if i < len(data) && data[i]|0x20 == 'e' {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		j := skipDigits(data, i)
		if j == i {
			return 0, errSyntax
		}
		i = j
	}
	return i, nil
}

func skipDigits(data []byte, i int) int {
	for i < len(data) && data[i] >= '0' && data[i] <= '9' {
		i++
	}
	return i
}

// decodeString returns the text of a JSON string token.
func decodeString(token []byte) (string, error) {
	if len(token) < 2 || token[0] != '"' {
		return "", errString
	}
	for _, c := range token {
		if c == '\\' {
			var s string
			if err := json.Unmarshal(token, &s); err != nil {
				return "", errString
			}
			return s, nil
		}
	}
	return string(token[1 : len(token)-1]), nil
}
