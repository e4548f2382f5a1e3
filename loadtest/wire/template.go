package wire

import "bytes"

// AnyUser is the placeholder for a user id in a template.
const AnyUser = "u######"

// Template is a request with placeholders for user id and stamp. It is not safe for
// concurrent use.
type Template struct {
	b      []byte
	users  []int // positions of AnyUser
	stamps []int
}

// NewTemplate returns a template for a complete request that contains AnyUser and
// the placeholder of Message.
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

// Append appends the request for a user and a stamp.
func (t *Template) Append(dst []byte, user int, s Stamp) []byte {
	for _, i := range t.users {
		appendUser(t.b[i:i], user)
	}
	for _, i := range t.stamps {
		s.put(t.b[i:])
	}
	return append(dst, t.b...)
}
