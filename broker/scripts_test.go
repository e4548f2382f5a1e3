package broker

import (
	"testing"

	"herald/notify"
)

// A retry after an upgrade gets the answer that 0.1.0 stored with its idempotency key.
func TestReceiptOfASkipStoredBy010(t *testing.T) {
	if r, err := readReceipt("0", "-2"); err != nil || r.Skip != notify.Skip(2) || r.Nodes != 0 {
		t.Errorf("readReceipt = %+v, %v", r, err)
	}
}
