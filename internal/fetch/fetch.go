// Package fetch gets small documents by HTTP from addresses that an operator has configured.
// A misbehaving server costs a bounded amount of time, bytes and concurrent requests, and
// redirects are not followed.
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
	// ErrNotFound means that the server answered 404.
	ErrNotFound = errors.New("not found")

	// ErrAway means that the last requests got no answer, and that another request is
	// probing the server.
	ErrAway = errors.New("the server does not answer")
)

// tolerated is the number of consecutive requests without an answer after which only one
// request at a time probes the server, so that a hanging server does not delay all callers.
const tolerated = 3

// Options configures a Client. The zero value works.
type Options struct {
	Token    string        // sent as Authorization: Bearer; default none
	Timeout  time.Duration // from the request to the last byte of the response; default 3 s
	MaxBytes int64         // of a document; default 64 KiB
	Most     int           // concurrent requests, further ones wait; default 32
}

// Client gets documents. It is safe for concurrent use.
type Client struct {
	// Static after construction.
	o     Options
	http  *http.Client
	slots chan struct{} // one value per running request; never closed

	unanswered atomic.Int64 // consecutive requests without an answer
	probing    atomic.Bool  // a probe is running
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

// Get returns the body of a 200 response. A 404 is ErrNotFound. Any other error names the
// status and never the address, which may be secret. While the server does not answer, all
// but one of the concurrent callers get ErrAway.
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

// withoutAddress keeps a possibly secret address out of logs.
func withoutAddress(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// CheckURL accepts only absolute http and https URLs with a host. Its error is meant for an
// operator and does not repeat the URL.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return errors.New("must be http://… or https://…, without a user or a fragment")
	}
	return nil
}
