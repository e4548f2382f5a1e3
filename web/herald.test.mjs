// Runs herald.js against a WebSocket, a fetch, a clock and a page that the test
// controls. `node --test herald.test.mjs`, or go test ./web.
import {afterEach, beforeEach, mock, test} from 'node:test';
import assert from 'node:assert/strict';
import {Herald} from './herald.js';

const URL_ = 'http://gateway.test/ws';
let sockets, requests, answer, page, clients;

class FakeWebSocket extends EventTarget {
  sent = [];
  closedWith = null;
  constructor(url, protocols) {
    super();
    if (protocols.some((p) => /[^\w.-]/.test(p))) throw new SyntaxError('bad subprotocol');
    Object.assign(this, {url: new URL(url), protocols});
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) { this.closedWith = code; }
  frame(frame) { this.dispatchEvent(Object.assign(new Event('message'), {data: typeof frame === 'string' ? frame : JSON.stringify(frame)})); }
  hello(more = {}) { this.frame({type: 'hello', userId: '42', connectionId: 'c', last: 100, read: 0, unread: 0, ping: 25, ...more}); }
  drop(code = 1006, reason = '') { this.dispatchEvent(Object.assign(new Event('close'), {code, reason})); }
}

const settle = () => new Promise((done) => setImmediate(done));
const advance = async (ms) => { mock.timers.tick(ms); await settle(); };
const current = () => sockets.at(-1);
const jwt = (seconds, salt = '') =>
  `h.${Buffer.from(JSON.stringify({exp: Date.now() / 1000 + seconds, salt})).toString('base64url')}.s`;

beforeEach(() => {
  sockets = []; requests = []; clients = [];
  answer = () => { throw new TypeError('failed to fetch'); };
  page = Object.assign(new EventTarget(), {baseURI: URL_, visibilityState: 'visible'});
  globalThis.document = page;
  globalThis.addEventListener = page.addEventListener.bind(page);
  mock.timers.enable({apis: ['setTimeout', 'Date'], now: 1_764_000_000_000});
  mock.method(Math, 'random', () => 0.5);
  mock.method(globalThis, 'fetch', async (url, init) => { requests.push({url: new URL(url), ...init}); return answer(); });
});

afterEach(() => {
  clients.forEach((c) => c.close());
  mock.timers.reset();
  mock.restoreAll();
  delete globalThis.document;
  delete globalThis.addEventListener;
});

async function start(options = {}) {
  const client = new Herald(URL_, {WebSocket: FakeWebSocket, ...options});
  const log = [];
  for (const type of ['open', 'notification', 'gap', 'read', 'state']) {
    client.addEventListener(type, (e) => log.push([type, e.detail]));
  }
  clients.push(client);
  await settle();
  const of = (type) => log.filter(([t]) => t === type).map(([, detail]) => detail);
  return {client, log, of, states: () => of('state').map((s) => s.state), state: () => of('state').at(-1)};
}

async function connected(options, hello) {
  const run = await start(options);
  current().hello(hello);
  return run;
}

test('a connection says hello and then delivers', async () => {
  const run = await connected();
  assert.equal(current().url.href, 'ws://gateway.test/ws');
  assert.deepEqual(current().protocols, ['herald.v1']);
  assert.deepEqual(run.states(), ['connecting', 'open']);
  assert.equal(run.of('open')[0].userId, '42');
  current().frame({type: 'notification', id: 101, prev: 100, ts: 1, kind: 'k', message: {a: 1}});
  current().frame({type: 'notification', ts: 2, message: 'now only'});
  current().frame({type: 'notification', ts: 2, message: 'now only'});
  assert.deepEqual(run.of('notification').map((n) => n.message), [{a: 1}, 'now only', 'now only']);
  assert.equal(run.client.lastId, 101);
});

test('https becomes wss, a fragment is dropped, the token stays out of the URL', async () => {
  const client = new Herald('https://gateway.test/ws?x=1#top', {WebSocket: FakeWebSocket, token: 'a.b.c'});
  clients.push(client);
  await settle();
  assert.equal(current().url.href, 'wss://gateway.test/ws?x=1');
  assert.deepEqual(current().protocols, ['herald.v1', 'bearer.a.b.c']);
});

for (const [name, options, before, want] of [
  ['the last id seen', {}, (ws) => { ws.hello(); ws.frame({type: 'notification', id: 107, message: 1}); }, '107'],
  ['hello.last when nothing came', {}, (ws) => ws.hello(), '100'],
  ['nothing before the first hello', {}, () => {}, null],
  ['the app\'s since, not hello.last', {since: 0}, (ws) => ws.hello(), '0'],
  ['just before what follows a gap', {since: 5}, (ws) => { ws.hello(); ws.frame({type: 'gap', after: 5, next: 50}); }, '49'],
  ['hello.last after a gap that nothing follows', {since: 900}, (ws) => { ws.hello(); ws.frame({type: 'gap', after: 900, next: 0}); }, '100'],
  ['the newest id told of, after a gap that nothing follows', {}, (ws) => {
    ws.hello(); ws.frame({type: 'notification', id: 107, message: 1}); ws.frame({type: 'gap', after: 107, next: 0});
  }, '107'],
]) {
  test(`resumes from ${name}`, async () => {
    await start(options);
    before(current());
    current().drop(1011);
    await advance(500);
    assert.equal(sockets.length, 2);
    assert.equal(current().url.searchParams.get('since'), want);
  });
}

test('drops duplicates, also across connections and after a step back', async () => {
  const run = await connected();
  for (const id of [101, 102, 102, 101]) current().frame({type: 'notification', id, message: id});
  current().drop();
  await advance(500);
  current().hello({last: 102});
  current().frame({type: 'gap', after: 102, next: 101});
  for (const id of [101, 102, 103]) current().frame({type: 'notification', id, message: id});
  assert.deepEqual(run.of('notification').map((n) => n.id), [101, 102, 103]);
});

test('a gap is the server\'s to declare', async () => {
  const run = await connected();
  current().frame({type: 'notification', id: 120, prev: 119, message: 1});
  assert.deepEqual(run.of('gap'), []);
  current().frame({type: 'gap', after: 120, next: 130});
  assert.deepEqual(run.of('gap'), [{type: 'gap', after: 120, next: 130}]);
});

test('backs off with full jitter from 1 s to 30 s, and starts over once stable', async () => {
  const run = await start();
  const waits = [];
  for (let i = 0; i < 7; i++) {
    current().drop(1011);
    waits.push(run.state().retryInMs);
    await advance(run.state().retryInMs - 1);
    assert.equal(sockets.length, i + 1, 'too early');
    await advance(1);
    assert.equal(sockets.length, i + 2);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000]);
  current().hello();
  current().drop(1011);
  assert.equal(run.state().retryInMs, 15000, 'a hello alone proves nothing');
  await advance(15000);
  current().hello();
  await advance(25_000);
  current().frame({type: 'pong'});
  current().drop(1011);
  assert.equal(run.state().retryInMs, 500);
});

for (const [code, reason] of [[4001, 'credentials expired'], [4002, 'session revoked'], [4003, 'protocol misuse'], [4004, 'too many']]) {
  test(`${code} stays away`, async () => {
    const run = await connected({token: 'a.b.c'});
    current().frame({type: 'bye', code, reason, retryAfterMs: 0});
    current().drop(code, reason);
    assert.deepEqual(run.state(), {state: 'closed', reason, code});
    await advance(3_600_000);
    page.dispatchEvent(new Event('online'));
    assert.equal(sockets.length, 1);
  });
}

test('a bye counts even if its close frame is lost', async () => {
  const run = await connected();
  current().frame({type: 'bye', code: 4002, reason: 'session revoked'});
  current().drop(1006);
  assert.deepEqual(run.state(), {state: 'closed', reason: 'session revoked', code: 4002});
});

test('4001 with a token function fetches another and comes back at once', async () => {
  let n = 0;
  const run = await connected({token: async () => `t.${++n}`});
  current().drop(4001, 'credentials expired');
  assert.equal(run.state().retryInMs, 0);
  await advance(0);
  assert.deepEqual(current().protocols, ['herald.v1', 'bearer.t.2']);
  current().hello();
  current().drop(4001);
  assert.equal(run.state().retryInMs, 1000, 'but not in a tight loop');
});

test('41xx comes back after the bye frame\'s time, even if the page comes into view', async () => {
  const run = await connected();
  current().frame({type: 'bye', code: 4101, reason: 'draining', retryAfterMs: 3120});
  current().drop(4101, 'draining');
  assert.deepEqual(run.state(), {state: 'waiting', reason: 'draining', code: 4101, retryInMs: 3120});
  page.dispatchEvent(new Event('visibilitychange'));
  await advance(3119);
  assert.equal(sockets.length, 1);
  await advance(1);
  assert.equal(sockets.length, 2);
});

test('41xx without a time waits at least a second', async () => {
  const run = await connected();
  current().drop(4102, 'too slow, resume');
  assert.equal(run.state().retryInMs, 1500);
});

test('pings each interval and gives up on silence after 2 intervals + 5 s', async () => {
  const run = await connected();
  const ws = current();
  await advance(25_000);
  assert.deepEqual(ws.sent, [{type: 'ping'}]);
  ws.frame({type: 'pong'});
  await advance(25_000);
  await advance(25_000);
  await advance(4_999);
  assert.equal(run.client.state, 'open');
  assert.equal(ws.sent.length, 3);
  await advance(1);
  assert.equal(run.state().reason, 'nothing heard');
  assert.equal(ws.closedWith, 1000);
  ws.hello();
  assert.equal(run.of('open').length, 1, 'the dead connection is not listened to');
});

test('a timer that a hidden page delays by a minute does not end a live connection', async () => {
  const run = await connected();
  await advance(25_000);
  current().frame({type: 'pong'});
  mock.timers.setTime(Date.now() + 60_000); // the clock moves, timers stay behind
  await advance(1);
  assert.equal(run.client.state, 'open');
  assert.equal(current().sent.length, 2);
});

for (const event of ['online', 'visibilitychange']) {
  test(`${event} ends the wait, and asks an open connection for a sign of life`, async () => {
    const run = await start();
    current().drop(1011);
    page.dispatchEvent(new Event(event));
    await settle();
    assert.equal(sockets.length, 2);
    current().hello();
    page.dispatchEvent(new Event(event));
    assert.deepEqual(current().sent, [{type: 'ping'}]);
    await advance(4_999);
    assert.equal(run.client.state, 'open');
    await advance(1);
    assert.equal(run.client.state, 'waiting');
  });
}

test('going out of view changes nothing', async () => {
  await start();
  current().drop(1011);
  page.visibilityState = 'hidden';
  page.dispatchEvent(new Event('visibilitychange'));
  await settle();
  assert.equal(sockets.length, 1);
});

const problem = (status, headers = {}) => () =>
  new Response(JSON.stringify({status, title: 'Title', detail: `detail ${status}`}), {status, headers});

for (const status of [400, 401, 403]) {
  test(`an upgrade refused with ${status} is final`, async () => {
    answer = problem(status);
    const run = await start({token: 'a.b.c', since: 7});
    current().drop(1006);
    await settle();
    assert.deepEqual(run.state(), {state: 'closed', reason: `detail ${status}`, code: status});
    assert.equal(requests[0].url.href, 'http://gateway.test/ws?since=7');
    assert.equal(requests[0].headers.Authorization, 'Bearer a.b.c');
    assert.equal(requests[0].credentials, 'include');
  });
}

for (const [name, status, header, wait] of [
  ['seconds', 429, '7', 7500], ['a date', 503, new Date(1_764_000_000_000 + 9000).toUTCString(), 9500],
  ['nonsense', 503, 'soon', 500], ['nothing', 429, null, 500], ['any on a 500', 500, '7', 500], ['none on 426', 426, null, 500],
]) {
  test(`a refused upgrade with Retry-After: ${name}`, async () => {
    answer = problem(status, header ? {'Retry-After': header} : {});
    const run = await start();
    current().drop(1006);
    await settle();
    assert.equal(run.state().state, 'waiting');
    assert.equal(run.state().code, status);
    assert.equal(run.state().retryInMs, wait);
    await advance(wait);
    assert.equal(sockets.length, 2);
  });
}

test('an unreachable server, one that answers in HTML, and one that never answers are tried again', async () => {
  const run = await start();
  current().drop(1006);
  await settle();
  assert.deepEqual(run.state(), {state: 'waiting', reason: 'unreachable', code: undefined, retryInMs: 500});
  answer = () => new Response('<h1>Bad gateway</h1>', {status: 502});
  await advance(500);
  current().drop(1006);
  await settle();
  assert.equal(run.state().reason, 'HTTP 502');
  await advance(1000);
  await advance(14_999);
  assert.equal(run.client.state, 'connecting');
  await advance(1);
  assert.deepEqual([run.state().state, run.state().reason], ['waiting', 'no answer']);
});

test('a connection lost after hello is not probed', async () => {
  await connected();
  current().drop(1006);
  await settle();
  assert.equal(requests.length, 0);
});

test('a token is renewed before it expires, and the same one again is not sent', async () => {
  let tokens = [jwt(100, 'first'), jwt(100, 'first'), jwt(1000, 'second')];
  const second = tokens[2];
  await connected({token: () => (tokens.length > 1 ? tokens.shift() : tokens[0])}, {ping: 3600});
  await advance(79_999);
  assert.equal(tokens.length, 2);
  await advance(1);
  assert.equal(tokens.length, 1, 'asked at 4/5 of its life');
  assert.deepEqual(current().sent, []);
  await advance(16_000);
  assert.deepEqual(current().sent, [{type: 'token', token: second}]);
});

test('a failed renewal is repeated, one too long for a frame is not sent', async () => {
  let asked = 0;
  const first = jwt(100);
  const answers = [() => first, () => { throw new Error('down'); }, () => 'x'.repeat(5000)];
  await connected({token: () => answers[Math.min(asked++, 2)]()}, {ping: 3600});
  await advance(80_000);
  assert.equal(asked, 2);
  await advance(16_000);
  assert.equal(asked, 3);
  assert.deepEqual(current().sent, []);
});

test('a token with no end, an ended one and one that lives for years set no timer that fires at once', async () => {
  for (const token of ['opaque', jwt(-5), jwt(10 * 365 * 86400)]) {
    let asked = 0;
    await connected({token: () => { asked++; return token; }}, {ping: 3600});
    await advance(60_000);
    assert.equal(asked, 1);
  }
});

test('a token function that fails is asked again after a wait', async () => {
  let fail = true;
  const run = await start({token: async () => { if (fail) throw new Error('offline'); return 'a.b.c'; }});
  assert.equal(run.state().reason, 'no token: offline');
  fail = false;
  await advance(500);
  assert.equal(sockets.length, 1);
});

test('a token that cannot be a subprotocol closes, saying so', async () => {
  const run = await start({token: 'not a token'});
  assert.deepEqual([run.state().state, run.state().reason], ['closed', 'bad subprotocol']);
});

test('read is sent at once, and again after a reconnect until confirmed', async () => {
  const run = await connected();
  run.client.read(101);
  assert.deepEqual(current().sent, [{type: 'read', upTo: 101}]);
  current().drop(1011);
  run.client.read(90);
  await advance(500);
  current().hello();
  assert.deepEqual(current().sent, [{type: 'read', upTo: 101}]);
  current().frame({type: 'read', upTo: 101, unread: 0});
  assert.deepEqual(run.of('read'), [{type: 'read', upTo: 101, unread: 0}]);
  current().drop(1011);
  await advance(1000);
  current().hello();
  assert.deepEqual(current().sent, []);
  assert.throws(() => run.client.read('101'), TypeError);
});

test('another user\'s hello closes: this page is not theirs', async () => {
  const run = await connected();
  current().drop(1011);
  await advance(500);
  current().hello({userId: 'mallory'});
  current().frame({type: 'notification', id: 500, message: 'private'});
  assert.deepEqual([run.state().state, run.state().reason], ['closed', 'logged in as another user']);
  assert.deepEqual(run.of('notification'), []);
});

test('frames that are unknown or no JSON are ignored', async () => {
  const run = await connected();
  for (const frame of ['{', 'null', '7', {type: 'later'}, {type: 'error', error: 'x'}]) current().frame(frame);
  assert.equal(run.client.state, 'open');
});

test('closed before it began, it opens nothing', async () => {
  const client = new Herald(URL_, {WebSocket: FakeWebSocket});
  client.close();
  await advance(60_000);
  assert.equal(client.state, 'closed');
  assert.equal(sockets.length, 0);
});

test('close is final, from every state and from inside a listener', async () => {
  for (const [i, reach] of [() => {}, () => current().hello(), () => current().drop(1011)].entries()) {
    const run = await start();
    const ws = current();
    reach();
    run.client.close();
    run.client.close();
    ws.hello();
    ws.drop();
    await advance(60_000);
    page.dispatchEvent(new Event('online'));
    await settle();
    assert.equal(run.states().filter((s) => s === 'closed').length, 1);
    assert.equal(run.state().state, 'closed');
    assert.equal(sockets.length, i + 1);
  }
  for (const at of ['connecting', 'open', 'waiting']) {
    const client = new Herald(URL_, {WebSocket: FakeWebSocket});
    const seen = [];
    client.addEventListener('state', (e) => { seen.push(e.detail.state); if (e.detail.state === at) client.close(); });
    client.addEventListener('open', () => seen.push('hello'));
    await settle();
    current().hello();
    current().drop(1011);
    await advance(60_000);
    assert.equal(seen.at(-1), 'closed', at);
    assert.ok(at === 'waiting' || !seen.includes('hello'));
  }
});
