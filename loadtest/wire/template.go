package wire

import "bytes"

// AnyUser stands for a user in what NewTemplate is given.
const AnyUser = "u######"

// Template is a request that is made once and patched for each use: to whom,
// and with which stamp. It is not for concurrent use.
type Template struct {
	b      []byte
	users  []int // where AnyUser stood
	stamps []int
}

// NewTemplate takes a complete request, with AnyUser and the placeholders of
// Message wherever they belong.
func NewTemplate(request []byte) *Template {
	return &Template{
		b:      bytes.Clone(request),
		users:  places(request, AnyUser),
		stamps: places(request, placeholder),
	}
}

func places(b []byte, what string) (at []int) {
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(what))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(what)
	}
}

// Append appends the request for that user and stamp.
func (t *Template) Append(dst []byte, user int, s Stamp) []byte {
	for _, i := range t.users {
		appendUser(t.b[i:i], user)
	}
	for _, i := range t.stamps {
		s.put(t.b[i:])
	}
	return append(dst, t.b...)
}
