/**
 * Herald's browser client: one WebSocket that keeps itself alive, comes back by
 * itself and resumes where it was, so that every stored notification arrives
 * once and in order. No dependencies; any page can import it.
 *
 *     import {Herald} from '/herald.js';
 *     const herald = new Herald('/ws');
 *     herald.addEventListener('notification', (e) => show(e.detail.message));
 *     herald.addEventListener('gap', () => refetchEverything());
 *
 * @module herald
 */

/** @typedef {{type: 'hello', userId: string, connectionId: string, last: number, read: number, unread: number, ping: number}} Hello */
/** @typedef {{type: 'notification', id?: number, prev?: number, ts: number, kind?: string, message: *}} Notification no `id`: ephemeral, never stored */
/** @typedef {{type: 'gap', after: number, next: number}} Gap what came between can't be had from here: refetch it elsewhere */
/** @typedef {{type: 'read', upTo: number, unread: number}} Read some device of this user read */
/** @typedef {'connecting'|'open'|'waiting'|'closed'} State `closed` is final: a new Herald is needed to try again */
/** @typedef {{state: State, reason?: string, code?: number, retryInMs?: number}} StateChange `code`: WebSocket close code or, under 1000, HTTP status */

const BACKOFF_MIN = 1_000; // ms, the first retry waits a random part of it
const BACKOFF_MAX = 30_000; // ms, what the doubling ends at
const HANDSHAKE = 15_000; // ms from asking for a token to hello, the probe included
const GRACE = 5_000; // ms beyond one ping interval that an answer may take
const REMEMBERED = 1_024; // ids kept to recognise duplicates
const MAX_FRAME = 4_096; // bytes, a longer frame makes the server close with 1009
const MAX_TIMER = 2 ** 31 - 1; // ms, a longer setTimeout fires at once

/**
 * One user's live notifications. Starts connecting in the next microtask, so
 * listeners added right after `new` miss nothing.
 *
 * Events are CustomEvents, the frame is their `detail`: `open` ({@link Hello}, after every
 * reconnect too), `notification` ({@link Notification}), `gap` ({@link Gap}),
 * `read` ({@link Read}), `state` ({@link StateChange}).
 */
export class Herald extends EventTarget {
  // Static after construction.
  #url;
  #token;
  #WebSocket;
  #page = new AbortController(); // ends the listeners on window and document

  // Outlives connections.
  #state = /** @type {State} */ ('connecting');
  #last = /** @type {number|undefined} */ (undefined); // where to resume; undefined: live only
  #seen = new Set();
  #userId = '';
  #reading = 0; // highest read() that no read frame has confirmed, 0: none
  #attempt = 0; // connects since a connection last proved stable
  #notBefore = 0; // Date.now() before which the server asked not to reconnect

  // One attempt or connection. #run ends every callback that belongs to it.
  #run = new AbortController();
  #ws = null;
  #timer; // connecting: deadline; open: next tick; waiting: next attempt
  #renewal;
  #hello = /** @type {Hello|null} */ (null);
  #bye = null;
  #newest = 0; // the newest id on this connection
  #pinged = 0; // Date.now() of the last ping
  #asked = 0; // Date.now() of the oldest ping without an answer, 0: none

  /**
   * @param {string|URL} url the gateway's /ws, relative to the page or absolute, ws: or http:
   * @param {object} [options]
   * @param {string|(() => string|Promise<string>)} [options.token] a JWT, or what fetches a
   *   fresh one: called for every attempt and before the JWT expires. Default: the page's
   *   cookies decide. It travels as a subprotocol, never in the URL.
   * @param {number} [options.since] the last id the app has, 0 for everything retained.
   *   Default: live only.
   * @param {typeof WebSocket} [options.WebSocket] default: the browser's
   */
  constructor(url, {token, since, WebSocket = globalThis.WebSocket} = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#url.protocol = this.#url.protocol.replace('http', 'ws');
    this.#url.hash = '';
    this.#token = token;
    this.#last = since;
    this.#WebSocket = WebSocket;
    const {signal} = this.#page;
    globalThis.addEventListener?.('online', () => this.#wake(), {signal});
    globalThis.document?.addEventListener('visibilitychange', () => {
      if (document.visibilityState === 'visible') this.#wake();
    }, {signal});
    queueMicrotask(() => signal.aborted || this.#connect());
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** The id to resume from: what an app may store and pass as `since` next time. @returns {number|undefined} */
  get lastId() { return this.#last; }

  /**
   * Marks everything up to an id as read, on all of the user's devices. Made while
   * disconnected, it is sent on the next connection.
   * @param {number} upTo
   */
  read(upTo) {
    if (!Number.isSafeInteger(upTo) || upTo < 0) throw new TypeError('read: upTo must be a notification id');
    this.#reading = Math.max(this.#reading, upTo);
    this.#send({type: 'read', upTo});
  }

  /** Ends the connection for good. No event but `state` follows. */
  close() { this.#finish('closed by the page', 1000); }

  #connect() {
    this.#stop();
    const run = this.#run.signal;
    this.#attempt++;
    this.#timer = setTimeout(() => this.#retry('no answer'), HANDSHAKE);
    this.#set('connecting');
    this.#dial(run);
  }

  async #dial(run) {
    let token;
    try {
      token = await (typeof this.#token === 'function' ? this.#token() : this.#token);
    } catch (err) {
      return run.aborted || this.#retry(`no token: ${err?.message ?? err}`);
    }
    if (run.aborted) return;
    const url = new URL(this.#url);
    if (this.#last !== undefined) url.searchParams.set('since', String(this.#last));
    let ws;
    try {
      ws = new this.#WebSocket(url.href, token ? ['herald.v1', `bearer.${token}`] : ['herald.v1']);
    } catch (err) { // a token that is no valid subprotocol, or an invalid URL
      return this.#finish(err.message);
    }
    this.#ws = ws;
    ws.addEventListener('message', (e) => this.#receive(e.data, token), {signal: run});
    ws.addEventListener('close', (e) => {
      if (e.code === 1006 && !this.#hello && !this.#bye) this.#probe(run, url, token);
      else this.#closed(e);
    }, {signal: run});
  }

  // Browsers hide why an upgrade was refused. A plain GET of the same URL runs the
  // same checks and answers 426 if they pass.
  async #probe(run, url, token) {
    const target = new URL(url);
    target.protocol = target.protocol.replace('ws', 'http');
    let res, problem;
    try {
      const headers = token ? {Authorization: `Bearer ${token}`} : {};
      res = await fetch(target.href, {headers, credentials: 'include', cache: 'no-store', signal: run});
      problem = await res.json().catch(() => null);
    } catch { // unreachable, or of another origin without CORS
      return run.aborted || this.#retry('unreachable');
    }
    if (run.aborted) return;
    const reason = problem?.detail || problem?.title || `HTTP ${res.status}`;
    if ([400, 401, 403].includes(res.status)) this.#finish(reason, res.status);
    else if (res.status === 429 || res.status === 503) this.#retry(reason, res.status, retryAfter(res.headers.get('Retry-After')));
    else this.#retry(res.status === 426 ? 'connection failed' : reason, res.status);
  }

  // 40xx: do not reconnect. 41xx: reconnect after the given time, at least a second.
  // Any other code is a failure of the network or the server.
  #closed({code: got, reason: text}) {
    const code = got >= 4000 ? got : this.#bye?.code ?? got; // a close frame may be lost behind its bye
    const reason = text || this.#bye?.reason || `connection closed (${code})`;
    if (code === 4001 && typeof this.#token === 'function') {
      this.#retry(reason, code, undefined, this.#attempt > 1 ? this.#backoff() : 0);
    } else if (code >= 4000 && code < 4100) {
      this.#finish(reason, code);
    } else if (code >= 4100 && code < 4200) {
      this.#retry(reason, code, this.#bye?.retryAfterMs ?? BACKOFF_MIN + this.#backoff());
    } else {
      this.#retry(reason, code);
    }
  }

  #backoff() {
    return Math.random() * Math.min(BACKOFF_MAX, BACKOFF_MIN * 2 ** (this.#attempt - 1));
  }

  // `demanded` is set by the server. A page that comes online or into view skips the
  // client's backoff, but not this wait.
  #retry(reason, code, demanded, wait = demanded ?? this.#backoff()) {
    if (demanded !== undefined && this.#attempt > 1) wait = Math.max(wait, this.#backoff());
    wait = Math.min(wait, MAX_TIMER);
    this.#stop();
    this.#notBefore = demanded === undefined ? 0 : Date.now() + wait;
    this.#set('waiting', {reason, code, retryInMs: wait});
    if (this.#state === 'waiting') this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #finish(reason, code) {
    if (this.#state === 'closed') return;
    this.#page.abort();
    this.#stop();
    this.#set('closed', {reason, code});
  }

  // The close event of a dead connection can take a minute; do not wait for it.
  #stop() {
    this.#run.abort();
    this.#run = new AbortController();
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    this.#ws?.close(1000);
    this.#ws = this.#hello = this.#bye = null;
    this.#asked = 0;
  }

  #wake() {
    if (this.#state === 'waiting' && Date.now() >= this.#notBefore) this.#connect();
    if (this.#state !== 'open') return;
    this.#ping();
    this.#asked = Date.now() - this.#hello.ping * 1000; // after a change of network: GRACE, no more
    this.#tick();
  }

  // The schedule: last frame at 0, ping at p, no answer by 2p + GRACE → dead. The
  // time counts from the unanswered ping, not from the last frame: timers of a
  // hidden page may run once a minute, and silence without a ping proves nothing.
  #tick() {
    clearTimeout(this.#timer);
    const now = Date.now();
    const ping = this.#hello.ping * 1000;
    if (this.#asked && now - this.#asked >= ping + GRACE) return this.#retry('nothing heard');
    if (now - this.#pinged >= ping) {
      if (!this.#asked) this.#attempt = 1;
      this.#ping();
    }
    const due = Math.min(this.#pinged + ping, this.#asked ? this.#asked + ping + GRACE : Infinity);
    this.#timer = setTimeout(() => this.#tick(), Math.max(due - now, 0));
  }

  #ping() {
    this.#pinged = Date.now();
    this.#asked ||= this.#pinged;
    this.#send({type: 'ping'});
  }

  #receive(data, token) {
    this.#asked = 0;
    let frame;
    try { frame = JSON.parse(data); } catch { return; }
    switch (frame?.type) {
      case 'hello': return this.#welcome(frame, token);
      case 'notification': return this.#deliver(frame);
      case 'gap': return this.#missed(frame);
      case 'read': return this.#confirmed(frame);
      case 'bye': this.#bye = frame;
    }
  }

  #welcome(hello, token) {
    if (this.#userId && hello.userId !== this.#userId) return this.#finish('logged in as another user');
    this.#userId = hello.userId;
    this.#hello = {...hello, ping: hello.ping > 0 ? hello.ping : 25};
    this.#last ??= hello.last;
    this.#newest = hello.last;
    this.#pinged = Date.now();
    const run = this.#run.signal;
    this.#tick();
    this.#renewBefore(token);
    this.#set('open');
    if (this.#reading > hello.read) this.#send({type: 'read', upTo: this.#reading});
    if (!run.aborted) this.#emit('open', hello);
  }

  // If `prev` is not the last id seen, the client does nothing: the server sends
  // what is missing, or a gap frame.
  #deliver(frame) {
    if (typeof frame.id === 'number') {
      if (this.#seen.has(frame.id)) return;
      this.#seen.add(this.#last = frame.id);
      this.#newest = Math.max(this.#newest, frame.id);
      if (this.#seen.size > REMEMBERED) this.#seen.delete(this.#seen.values().next().value);
    }
    this.#emit('notification', frame);
  }

  // May move the resume point back: a server that lost the end of the log answers an
  // unknown `since` with a gap. next 0: nothing retained follows.
  #missed(frame) {
    this.#last = frame.next > 0 ? frame.next - 1 : this.#newest;
    this.#emit('gap', frame);
  }

  #confirmed(frame) {
    if (frame.upTo >= this.#reading) this.#reading = 0;
    this.#emit('read', frame);
  }

  // Fetches a new token after four fifths of the remaining life, and sooner if the
  // function returns the same token again. The server accepted a token that has
  // expired by this clock: wait for 4001.
  #renewBefore(token) {
    const left = expiry(token) - Date.now();
    if (typeof this.#token !== 'function' || !(left > 0)) return;
    const run = this.#run.signal;
    this.#renewal = setTimeout(() => this.#renew(run, token), Math.max(1_000, Math.min(left * 0.8, MAX_TIMER)));
  }

  async #renew(run, old) {
    const token = await Promise.resolve().then(this.#token).catch(() => old);
    if (run.aborted) return;
    if (token && token !== old) this.#send({type: 'token', token});
    this.#renewBefore(token || old);
  }

  #send(frame) {
    const text = JSON.stringify(frame);
    if (this.#state === 'open' && text.length <= MAX_FRAME) this.#ws.send(text);
  }

  #set(state, more = {}) {
    this.#state = state;
    this.#emit('state', {state, ...more});
  }

  #emit(type, detail) { this.dispatchEvent(new CustomEvent(type, {detail})); }
}

// Retry-After (RFC 9110, 10.2.3) is seconds or a date. undefined: the client's backoff
// decides.
function retryAfter(header) {
  if (!header) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return ms >= 0 ? ms + Math.random() * 1000 : undefined;
}

// exp of a JWT in ms; NaN if it cannot be read. The server verifies it.
function expiry(token) {
  try {
    const payload = String(token).split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(atob(payload)).exp * 1000;
  } catch {
    return NaN;
  }
}
