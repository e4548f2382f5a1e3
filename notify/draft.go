package notify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Draft is one validated notification as a publisher sent it. Its Message aliases the
// request's body: a caller that keeps it longer must copy it.
type Draft struct {
	UserID      string
	Message     []byte        // one JSON value, exactly as sent
	Kind        string        // the publisher's type; "" if none
	TTL         time.Duration // time to live; 0: as long as the log retains it
	Ephemeral   bool          // delivered to the sockets that are open now, never stored
	TraceParent string        // W3C Trace Context; "" if none
	Urgency     Urgency       // set by the publisher
	Quiet       bool          // stored without being announced
	Skip        Skip          // if set, the recipient does not want it: neither stored nor announced
}

// Request is the body of POST /notify: one notification for one or many users.
type Request struct {
	Draft          // UserID is set only if Many is false
	Users []string // the recipients, 1–MaxRecipients, no two the same
	Many  bool     // the publisher sent userIds and expects results
	When  When
}

// field names of POST /notify, by what they hold.
const (
	fieldUserID    = "userId"
	fieldUserIDs   = "userIds"
	fieldMessage   = "message"
	fieldType      = "type"
	fieldTTL       = "ttl"
	fieldEphemeral = "ephemeral"
	fieldDeliverAt = "deliverAt"
	fieldDelay     = "delay"
	fieldUrgency   = "urgency"
	fieldItems     = "notifications"
)

// depths left inside the values of a request's envelope: the message is checked
// on its own, so the envelope only has to be deep enough to reach it.
const envelopeDepth = MaxNesting + 4

// ParseRequest reads the body of POST /notify. Errors are *FieldError.
func ParseRequest(body []byte) (Request, error) {
	if !utf8.Valid(body) {
		return Request{}, &FieldError{Problem: errUTF8.Error()}
	}
	return parseRequest(body, "")
}

// BatchItem is one notification of a batch, or why it is refused.
type BatchItem struct {
	Request
	Err error // a *FieldError; the others of the batch are not affected
}

// ParseBatch reads the body of POST /notify/batch. An error means that the
// whole batch is refused; an item's own mistake is in its Err.
func ParseBatch(body []byte) ([]BatchItem, error) {
	if !utf8.Valid(body) {
		return nil, &FieldError{Problem: errUTF8.Error()}
	}
	var list []byte
	err := members(body, envelopeDepth, func(name string, value []byte) error {
		if name != fieldItems {
			return unknownField("", name, fieldItems)
		}
		if list != nil {
			return repeatedField("", name)
		}
		list = value
		return nil
	})
	if err != nil {
		return nil, asFieldError("", err)
	}
	if list == nil {
		return nil, &FieldError{Field: fieldItems, Problem: "is required"}
	}
	var items []BatchItem
	err = elements(list, envelopeDepth, func(i int, value []byte) error {
		if i >= MaxRecipients {
			return &FieldError{Field: fieldItems, Problem: fmt.Sprintf("must hold 1 to %d notifications", MaxRecipients)}
		}
		r, err := parseRequest(value, fieldItems+"["+strconv.Itoa(i)+"]")
		items = append(items, BatchItem{Request: r, Err: err})
		return nil
	})
	if err != nil {
		return nil, asFieldError(fieldItems, err)
	}
	if len(items) == 0 {
		return nil, &FieldError{Field: fieldItems, Problem: fmt.Sprintf("must hold 1 to %d notifications", MaxRecipients)}
	}
	return items, nil
}

// parseRequest reads one notification; at is its place in the body ("" or
// notifications[i]). A field named twice is refused rather than resolved.
func parseRequest(body []byte, at string) (Request, error) {
	var r Request
	var seen [9]bool
	err := members(body, envelopeDepth, func(name string, value []byte) error {
		slot, ok := requestField(name)
		if !ok {
			return unknownField(at, name, fieldUserID, fieldUserIDs, fieldMessage, fieldType, fieldTTL, fieldEphemeral, fieldUrgency, fieldDeliverAt, fieldDelay)
		}
		if seen[slot] {
			return repeatedField(at, name)
		}
		seen[slot] = true
		if err := r.set(name, value); err != nil {
			return asFieldError(join(at, name), err)
		}
		return nil
	})
	if err == nil {
		err = r.complete(at)
	}
	if err != nil {
		return Request{}, asFieldError(at, err)
	}
	return r, nil
}

func requestField(name string) (slot int, ok bool) {
	switch name {
	case fieldUserID:
		return 0, true
	case fieldUserIDs:
		return 1, true
	case fieldMessage:
		return 2, true
	case fieldType:
		return 3, true
	case fieldTTL:
		return 4, true
	case fieldEphemeral:
		return 5, true
	case fieldDeliverAt:
		return 6, true
	case fieldDelay:
		return 7, true
	case fieldUrgency:
		return 8, true
	}
	return 0, false
}

func (r *Request) set(name string, value []byte) (err error) {
	switch name {
	case fieldUserID:
		r.UserID, err = parseUserID(value)
	case fieldUserIDs:
		r.Many = true
		r.Users, err = parseUserIDs(value)
	case fieldMessage:
		r.Message, err = value, checkMessage(value)
	case fieldType:
		r.Kind, err = parseKind(value)
	case fieldTTL:
		r.TTL, err = parseSeconds(value, MaxTTLSeconds)
	case fieldEphemeral:
		if s := string(value); s != "true" && s != "false" {
			return errors.New("must be true or false")
		}
		r.Ephemeral = value[0] == 't'
	case fieldDeliverAt, fieldDelay:
		err = r.When.set(name, value)
	case fieldUrgency:
		r.Urgency, err = parseUrgency(value)
	}
	return err
}

func (r *Request) complete(at string) error {
	switch {
	case r.Many && r.UserID != "":
		return &FieldError{Field: join(at, fieldUserIDs), Problem: "must not stand beside userId"}
	case !r.Many && r.UserID == "":
		return &FieldError{Field: join(at, fieldUserID), Problem: "is required"}
	case r.Message == nil:
		return &FieldError{Field: join(at, fieldMessage), Problem: "is required"}
	}
	if !r.Many {
		r.Users = []string{r.UserID}
	}
	return r.When.complete(at)
}

func parseUserID(value []byte) (string, error) {
	s, err := decodeString(value)
	if err != nil {
		return "", err
	}
	if !ValidUserID(s) {
		return "", ErrUserID
	}
	return s, nil
}

func parseUserIDs(value []byte) ([]string, error) {
	errCount := fmt.Errorf("must be an array of 1 to %d user ids", MaxRecipients)
	var users []string
	index := make(map[string]int)
	err := elements(value, 1, func(i int, v []byte) error {
		if i >= MaxRecipients {
			return errCount
		}
		s, err := parseUserID(v)
		if err != nil {
			return asFieldError("userIds["+strconv.Itoa(i)+"]", err)
		}
		if first, twice := index[s]; twice {
			return &FieldError{Field: "userIds[" + strconv.Itoa(i) + "]", Problem: "repeats userIds[" + strconv.Itoa(first) + "]"}
		}
		index[s] = i
		users = append(users, s)
		return nil
	})
	if err == nil && len(users) == 0 {
		err = errCount
	}
	if errors.Is(err, errArray) || errors.Is(err, errDepth) {
		err = errCount
	}
	return users, err
}

func checkMessage(value []byte) error {
	if len(value) > MaxMessageBytes {
		return &FieldError{Problem: fmt.Sprintf("is %d bytes long; the limit is %d", len(value), MaxMessageBytes), Size: true}
	}
	_, err := scanValue(value, 0, MaxNesting)
	return err
}

func parseKind(value []byte) (string, error) {
	s, err := decodeString(value)
	if err != nil {
		return "", err
	}
	if s == "" || len(s) > MaxKindBytes || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("must be 1 to %d bytes without control characters", MaxKindBytes)
	}
	return s, nil
}

func parseSeconds(value []byte, most int) (time.Duration, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < 1 || n > most || value[0] == '+' {
		return 0, fmt.Errorf("must be a whole number of seconds from 1 to %d", most)
	}
	return time.Duration(n) * time.Second, nil
}

// ValidTraceParent reports whether s is a traceparent header of W3C Trace
// Context version 00 with non-zero ids. One that is not is ignored, as the
// specification asks.
func ValidTraceParent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	trace, span, flags := s[3:35], s[36:52], s[53:]
	return strings.Trim(trace+span+flags, "0123456789abcdef") == "" &&
		strings.Trim(trace, "0") != "" && strings.Trim(span, "0") != ""
}

func unknownField(at, name string, known ...string) error {
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return &FieldError{Field: join(at, quoteName(name)), Problem: "must be spelled " + k}
		}
	}
	return &FieldError{Field: join(at, quoteName(name)), Problem: "is not a known field"}
}

func repeatedField(at, name string) error {
	return &FieldError{Field: join(at, name), Problem: "appears twice"}
}

// quoteName returns an unknown field's name, shortened and printable, for an error.
func quoteName(name string) string {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "") + "…"
	}
	if plain := strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"); plain == "" && name != "" {
		return name
	}
	return strconv.QuoteToASCII(name)
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

// asFieldError gives err the field it belongs to, unless it names a deeper one.
func asFieldError(at string, err error) error {
	var fe *FieldError
	if !errors.As(err, &fe) {
		return &FieldError{Field: at, Problem: err.Error()}
	}
	if fe.Field == "" && at != "" {
		return &FieldError{Field: at, Problem: fe.Problem, Size: fe.Size}
	}
	return fe
}

// MaxVolume bounds what one request announces, in bytes of messages times
// recipients. Redis sends it to each node at once, and drops a subscriber for which
// 32 MB are queued.
const MaxVolume = 8 << 20

// CheckVolume refuses drafts whose sum exceeds MaxVolume. Its error is a
// *FieldError.
func CheckVolume(drafts []Draft) error {
	volume := 0
	for i := range drafts {
		volume += len(drafts[i].Message)
	}
	if volume > MaxVolume {
		return &FieldError{Field: "the messages", Problem: fmt.Sprintf("times their recipients are %d bytes; the limit is %d", volume, MaxVolume), Size: true}
	}
	return nil
}
