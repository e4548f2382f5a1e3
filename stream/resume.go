package stream

import (
	"time"

	"herald/broker"
	"herald/notify"
)

// pageBytes is how many bytes of the log a resume reads at once. The socket's queue
// adds to this; the next page waits until the client has taken half the queue.
const pageBytes = 128 << 10

// goLive goes live without reading the log if nothing newer has been announced.
func (st *stream) goLive(newest notify.ID) bool {
	target := st.s.Hub.Target(st.sock.UserID)
	return target <= newest && st.sock.GoLive(target)
}

// catchUp sends the log page by page until it reaches what has been announced, then
// goes live.
func (st *stream) catchUp() {
	for {
		target := st.s.Hub.Target(st.sock.UserID)
		page, ok := st.page()
		if !ok || !st.sock.Resume(st.s.ctx, page.Entries) {
			return
		}
		if page.Full {
			continue
		}
		if st.sock.Last() < page.Last { // counted, but no longer in the log
			st.sock.SendGap(page.Last)
		}
		if st.sock.GoLive(target) {
			return
		}
	}
}

// state reads the user's state. Like page it retries until Redis answers or the
// client is gone.
func (st *stream) state() (state broker.State, ok bool) {
	ok = st.retry(func() (err error) {
		state, err = st.s.Broker.State(st.s.ctx, st.sock.UserID)
		return err
	})
	return state, ok
}

func (st *stream) page() (page broker.Page, ok bool) {
	ok = st.retry(func() (err error) {
		page, err = st.s.Broker.After(st.s.ctx, st.sock.UserID, st.sock.Last(), broker.MaxPage, pageBytes)
		return err
	})
	return page, ok
}

// retry calls f with backoff until it succeeds; false if the socket or the streams
// have ended.
func (st *stream) retry(f func() error) bool {
	const first, most = 50 * time.Millisecond, time.Second
	for wait := first; st.s.ctx.Err() == nil && !st.sock.Ended(); wait = min(2*wait, most) {
		if f() == nil {
			return true
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-st.s.ctx.Done():
			t.Stop()
		}
	}
	return false
}
