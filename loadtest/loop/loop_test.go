//go:build linux

package loop

import (
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newLoop(t testing.TB) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func TestTimersRunInOrderAndNotEarly(t *testing.T) {
	l := newLoop(t)
	var order []int // on the loop's thread
	done := make(chan struct{})
	l.Call(func() {
		now := Now()
		for _, i := range []int{3, 1, 2, 0} {
			at := now + time.Duration(i)*3*time.Millisecond
			l.At(at, func() {
				if Now() < at {
					t.Errorf("%d is early", i)
				}
				if order = append(order, i); len(order) == 4 {
					close(done)
				}
			})
		}
	})
	<-done
	l.Call(func() {
		if !slices.Equal(order, []int{0, 1, 2, 3}) {
			t.Errorf("order %v", order)
		}
	})
}

func TestATimerThatSetsItselfAgainDoesNotStarveTheRest(t *testing.T) {
	l := newLoop(t)
	stop := false
	var again func()
	again = func() {
		if !stop {
			l.At(0, again)
		}
	}
	l.Do(again)
	for range 100 {
		l.Call(func() {})
	}
	l.Call(func() { stop = true })
}

func TestDoFromManyThreads(t *testing.T) {
	l := newLoop(t)
	n := 0 // on the loop's thread
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				l.Do(func() { n++ })
			}
		})
	}
	all.Wait()
	l.Call(func() {
		if n != 8000 {
			t.Errorf("%d of 8000", n)
		}
	})
}

func TestAfterCloseNothingRuns(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	l.Do(func() { t.Error("it runs") })
	l.Call(func() { t.Error("it runs") }) // and does not block
	l.Close()
}

func TestLoadCountsWaitingAsIdle(t *testing.T) {
	l := newLoop(t)
	before := l.Load()
	time.Sleep(30 * time.Millisecond) // idle
	l.Call(func() {
		for until := Now() + 30*time.Millisecond; Now() < until; {
		}
	})
	load := l.Load().Minus(before)
	if load.Of < 60*time.Millisecond || load.Busy < 30*time.Millisecond || load.Busy > load.Of-20*time.Millisecond || load.CPU > load.Busy+5*time.Millisecond {
		t.Errorf("%+v", load)
	}
}

// Events within one interval are handled in one turn.
func TestCoalesce(t *testing.T) {
	const bytes = 150
	l := newLoop(t)
	a, b := pair(t)
	defer func() { _, _ = unix.Close(a), unix.Close(b) }()
	r := &counter{fd: a, want: bytes, done: make(chan struct{})}
	l.Call(func() { _ = l.Add(a, Reading, r) })
	l.Coalesce(10 * time.Millisecond)
	before := l.Load()
	for range bytes {
		if _, err := Write(b, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	<-r.done
	load := l.Load().Minus(before)
	l.Call(func() {
		if r.turns > bytes/3 { // takes half a second
			t.Errorf("%d turns for %d bytes", r.turns, bytes)
		}
	})
	if load.Busy > load.Of*9/10 {
		t.Errorf("sleep counts as busy: %+v", load)
	}
	l.Coalesce(0)
}

func TestNice(t *testing.T) {
	l := newLoop(t)
	l.Nice(7)
	var got int
	var err error
	l.Call(func() { got, err = unix.Getpriority(unix.PRIO_PROCESS, 0) })
	if err != nil || 20-got != 7 { // the system call returns 20 minus the nice value
		t.Errorf("%d, %v", 20-got, err)
	}
}

// counter counts bytes, and the turns in which they arrive.
type counter struct {
	fd, want, turns int
	done            chan struct{}
}

func (c *counter) Ready(events uint32) {
	c.turns++
	Drain(c.fd, events, make([]byte, 1000), func(b []byte, _ error) bool {
		if c.want -= len(b); c.want == 0 {
			close(c.done)
		}
		return true
	})
}

// pair returns both ends of a non-blocking stream.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

// reader collects bytes until the end of the stream.
type reader struct {
	fd    int
	buf   []byte
	got   []byte
	ended chan error
}

func (r *reader) Ready(events uint32) {
	Drain(r.fd, events, r.buf, func(b []byte, err error) bool {
		r.got = append(r.got, b...)
		if err != nil {
			r.ended <- err
		}
		return err == nil
	})
}

// With edge triggering, Drain must not leave data or the end of the stream unread:
// data directly followed by the end, and more data than one buffer holds.
func TestDrainMissesNothing(t *testing.T) {
	for _, size := range []int{0, 1, 16, 17, 160, 1000} {
		l := newLoop(t)
		a, b := pair(t)
		r := &reader{fd: a, buf: make([]byte, 16), ended: make(chan error, 1)}
		sent := slices.Repeat([]byte("x"), size)
		if _, err := Write(b, sent); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(b)
		l.Call(func() {
			if err := l.Add(a, Reading, r); err != nil {
				t.Error(err)
			}
		})
		select {
		case err := <-r.ended:
			if !errors.Is(err, io.EOF) {
				t.Errorf("%d bytes: %v", size, err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%d bytes: the end was missed", size)
		}
		l.Call(func() {
			if len(r.got) != size {
				t.Errorf("%d of %d bytes", len(r.got), size)
			}
			l.Forget(a)
		})
		_ = unix.Close(a)
	}
}

func TestReadAndWriteOfABadDescriptor(t *testing.T) {
	if _, err := Read(-1, make([]byte, 1)); !errors.Is(err, unix.EBADF) {
		t.Errorf("read: %v", err)
	}
	if _, err := Write(-1, make([]byte, 1)); !errors.Is(err, unix.EBADF) {
		t.Errorf("write: %v", err)
	}
	if n, err := Read(-1, nil); n != 0 || err != nil {
		t.Errorf("read nothing: %d, %v", n, err)
	}
}

func BenchmarkCall(b *testing.B) {
	l := newLoop(b)
	b.ReportAllocs()
	for b.Loop() {
		l.Call(func() {})
	}
}
