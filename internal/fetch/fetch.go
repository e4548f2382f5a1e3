// Package fetch gets small documents by HTTP from addresses that an operator has
// configured, and lets no server there cost more than it may: time, bytes and
// requests at once are bounded, redirects are not followed.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

var (
	// ErrNotFound: the server says that there is no such document (404).
	ErrNotFound = errors.New("not found")

	// ErrAway: the server has not answered lately, and another request is finding
	// out whether it does again.
	ErrAway = errors.New("the server does not answer")
)

// tolerated is how many requests in a row may get no answer before only one at a
// time is sent: a server that hangs must not make everyone wait for it.
const tolerated = 3

// Options of a Client. The zero value works.
type Options struct {
	Token    string        // sent as Authorization: Bearer; default none
	Timeout  time.Duration // from the request to the last byte of the answer; default 3 s
	MaxBytes int64         // of a document; default 64 KiB
	Most     int           // requests at once, further ones wait; default 32
}

// Client gets documents. It is safe for concurrent use.
type Client struct {
	// Static after construction.
	o     Options
	http  *http.Client
	slots chan struct{} // one for each request under way; never closed

	unanswered atomic.Int64 // requests in a row
	probing    atomic.Bool  // the one request is under way
}

// New returns a Client. It honours the proxy variables of net/http.
func New(o Options) *Client {
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 10
	}
	if o.Most <= 0 {
		o.Most = 32
	}
	return &Client{o: o, slots: make(chan struct{}, o.Most), http: &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: o.Most, IdleConnTimeout: 30 * time.Second,
			TLSHandshakeTimeout: o.Timeout, MaxResponseHeaderBytes: 16 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get returns the document at address: the body of a 200. A 404 is ErrNotFound,
// everything else another error, which names the status and never the address.
// While the server gives no answers, all but one of several callers get ErrAway.
func (c *Client) Get(ctx context.Context, address string) ([]byte, error) {
	if c.unanswered.Load() >= tolerated {
		if !c.probing.CompareAndSwap(false, true) {
			return nil, ErrAway
		}
		defer c.probing.Store(false)
	}
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("not a valid address")
	}
	req.Header.Set("Accept", "application/json")
	if c.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.unanswered.Add(1)
		return nil, withoutAddress(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.o.MaxBytes+1))
	if err != nil {
		c.unanswered.Add(1)
		return nil, err
	}
	c.unanswered.Store(0)
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, ErrNotFound
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("answered with status %d", resp.StatusCode)
	case int64(len(body)) > c.o.MaxBytes:
		return nil, fmt.Errorf("answered with more than %d bytes", c.o.MaxBytes)
	}
	return body, nil
}

// withoutAddress keeps what may be secret in an address out of logs.
func withoutAddress(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// CheckURL refuses what is not an absolute http or https URL with a host. Its error
// is fit for an operator and does not repeat the URL.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("must be http://… or https://…, without a user or a fragment")
	}
	return nil
}
