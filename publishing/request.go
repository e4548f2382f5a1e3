package publishing

import (
	"time"

	"herald/broker"
	"herald/internal/schedule"
	"herald/notify"
)

// Request is what a publisher sent: one notification or a batch.
type Request struct {
	Items       []notify.BatchItem // Check sets the Err of those that it refuses in a batch
	Batch       bool               // a mistake in an item refuses only that item
	TraceParent string             // W3C trace context of all items; "" if none
	Refused     error              // why the request is refused; it costs nothing then
	Idempotency broker.Idempotency // zero: each request is a publish
	// Render encodes the answer. receipts has one for each recipient of each good item,
	// in order.
	Render func(receipts []Receipt) ([]byte, error)

	// Set by Check.
	drafts    []notify.Draft // one for each recipient of each good item
	whens     []notify.When  // of the drafts
	scheduled int            // drafts that are for later
}

// Check refuses a time that is too far after now, by the clock of this node, and a
// request for too many recipients or of too much volume. Its errors are
// *notify.FieldError.
func (r *Request) Check(now time.Time) error {
	for i := range r.Items {
		item := &r.Items[i]
		if item.Err != nil {
			continue
		}
		index := i
		if !r.Batch {
			index = -1
		}
		if err := item.When.CheckAhead(now, index); err != nil {
			if !r.Batch {
				return err
			}
			item.Err = err
			continue
		}
		for _, user := range item.Users {
			d := item.Draft
			d.UserID, d.TraceParent = user, r.TraceParent
			r.drafts = append(r.drafts, d)
			r.whens = append(r.whens, item.When)
			if item.When.Scheduled() {
				r.scheduled++
			}
		}
	}
	if len(r.drafts) > notify.MaxRecipients {
		return &notify.FieldError{Field: "notifications", Problem: "are for more than 1000 users together"}
	}
	return notify.CheckVolume(r.drafts)
}

func (r *Request) split() (later []schedule.Item, now []notify.Draft) {
	for i, d := range r.drafts {
		if r.whens[i].Scheduled() {
			later = append(later, schedule.Item{Draft: d, When: r.whens[i]})
		} else {
			now = append(now, d)
		}
	}
	return later, now
}

// merge puts the receipts of both halves in the order of the drafts.
func merge(r *Request, placed []schedule.Placed, published []Receipt) []Receipt {
	if len(placed) == 0 {
		return published
	}
	list := make([]Receipt, len(r.drafts))
	for i := range list {
		if r.whens[i].Scheduled() {
			list[i], placed = Receipt{Scheduled: &placed[0]}, placed[1:]
		} else {
			list[i], published = published[0], published[1:]
		}
	}
	return list
}
