// The demo page. The same document is the log-in card at / and one user's notifications at
// /demo/as/<user>/. Everything from the network reaches the page as textContent, never as
// markup.
import {Herald} from '/herald.js';

const LONGEST_LIST = 300; // entries kept on the page
const INBOX_PAGES = 12; // more than a log of the default length fills
const SECOND = 1_000; // ms

const $ = (id) => document.getElementById(id);
const demo = document.body.dataset.demo === 'on';

// The session cookie's path is /demo/as/<user>/, so the browser sends alice's cookie only
// to alice's paths. Two tabs of one browser can then be two users; with one cookie at /
// the last log-in would replace the others. Every request below is therefore relative.
const [, pathUser = ''] = location.pathname.replaceAll('%40', '@').match(/^\/demo\/as\/([\w.@-]+)\/$/) ?? [];

let herald = null;
let token = ''; // a pasted JWT; kept in memory only, so a reload forgets it
let unread = 0;
let readUpTo = 0;
let toldUpTo = 0; // hello.last; hello.unread counts everything up to it
let inboxLoaded = false;
let countdown; // interval of "reconnecting in n s"

class Refusal extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

// Errors are application/problem+json (RFC 9457): `detail` is meant for people.
async function call(method, path, body) {
  const headers = {Accept: 'application/json'};
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (token) headers.Authorization = `Bearer ${token}`;
  let res;
  try {
    res = await fetch(path, {method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store'});
  } catch {
    throw new Refusal('The server can’t be reached.', 0);
  }
  const answer = await res.json().catch(() => null);
  if (!res.ok) throw new Refusal(answer?.detail || answer?.title || `The server answered ${res.status}.`, res.status);
  return answer;
}

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// A steady colour for a word. Set through the CSSOM, which a strict CSP allows; a
// style attribute it would not.
function tint(node, word) {
  let hash = 0;
  for (const c of word) hash = (hash * 31 + c.codePointAt(0)) % 360;
  node.style.setProperty('--hue', String(hash));
  return node;
}

// A pasted token connects to the gateway's own paths, wherever the page was opened.
const here = (path) => (token ? `/${path}` : path);

const say = (text) => { $('said').textContent = text; };

// --- The gate: log in, or connect with a token ---

function showGate(message = '') {
  herald?.close();
  herald = null;
  token = '';
  clearInterval(countdown);
  document.title = 'Herald';
  const [form, field, error] = demo ? ['login', 'login-user', 'login-error'] : ['connect', 'connect-token', 'connect-error'];
  $('app').hidden = true;
  $('gate').hidden = $(form).hidden = false;
  $('steps').hidden = !demo;
  tell(error, message, true);
  if (demo && pathUser) $('login-user').value = pathUser;
  $(field).focus();
}

function refuseGate(field, error, message) {
  $(field).setAttribute('aria-invalid', String(message !== ''));
  tell(error, message, false);
  if (message) $(field).focus();
}

// `calm`: information, not an input error.
function tell(place, message, calm) {
  $(place).classList.toggle('told', calm);
  $(place).textContent = message;
}

// Only one submission at a time; the button is disabled meanwhile.
function onSubmit(form, button, work) {
  $(form).addEventListener('submit', async (event) => {
    event.preventDefault();
    await busy($(button), work);
  });
}

async function busy(button, work) {
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  try { await work(); } finally { button.removeAttribute('aria-busy'); }
}

async function logIn() {
  const userId = $('login-user').value.trim();
  if (!userId) return refuseGate('login-user', 'login-error', 'Choose a user id, any name will do.');
  try {
    const answer = await call('POST', '/demo/login', {userId});
    location.assign(answer.path);
  } catch (err) {
    refuseGate('login-user', 'login-error', err.message);
  }
}

function connectWithToken() {
  const pasted = $('connect-token').value.replace(/\s+/g, '');
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(pasted)) {
    return refuseGate('connect-token', 'connect-error', 'That is not a JWT: three parts with dots between them.');
  }
  refuseGate('connect-token', 'connect-error', '');
  $('connect-token').value = '';
  enter('', pasted);
}

// --- One user's page ---

function enter(user, jwt = '') {
  token = jwt;
  unread = readUpTo = toldUpTo = 0;
  inboxLoaded = false;
  $('gate').hidden = true;
  $('app').hidden = false;
  $('notifications').replaceChildren();
  $('empty').hidden = false;
  $('send').parentElement.hidden = Boolean(jwt) && !mayPublish(jwt);
  $('logout').textContent = jwt ? 'Disconnect' : 'Log out';
  $('logout-all').hidden = Boolean(jwt);
  $('leave-error').textContent = $('send-result').textContent = $('user').textContent = $('send-to').value = '';
  showUser(user);
  showUnread();
  connect(jwt ? {token: jwt} : {});
}

// Decides only whether to show the form; the server decides what the token may do.
function mayPublish(jwt) {
  try {
    const {scope, scopes} = JSON.parse(atob(jwt.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')));
    return String(scopes ?? scope ?? '').split(/[ ,]/).includes('publish');
  } catch {
    return false;
  }
}

function connect(options) {
  const client = herald = new Herald(here('ws'), options);
  const on = (type, heard) => client.addEventListener(type, (e) => { if (client === herald) heard(e.detail); });
  on('state', showState);
  on('open', (hello) => {
    showUser(hello.userId);
    toldUpTo = hello.last;
    setRead(hello.read, hello.unread);
    if (!inboxLoaded) loadInbox(client);
  });
  on('notification', (n) => {
    const item = show(n);
    item?.classList.add('fresh');
    if (n.id > toldUpTo) unread++;
    showUnread();
    say(`New notification${n.kind ? `, ${n.kind}` : ''}: ${summary(n.message)}`);
  });
  on('read', (r) => setRead(r.upTo, r.unread));
  on('gap', (gap) => {
    showGap(gap);
    loadInbox(client);
  });
}

// Loads what was stored before this page was opened, page by page up to the newest; the
// list keeps the newest entries. Without an inbox (404) the page shows live notifications
// only.
async function loadInbox(client) {
  try {
    for (let after = 0, pages = 0; after !== null && pages < INBOX_PAGES; pages++) {
      const page = await call('GET', here(`inbox?limit=${after ? `100&after=${after}` : 50}`));
      if (client !== herald) return;
      page?.items?.forEach(show);
      after = page?.next || null;
    }
    inboxLoaded = true;
  } catch (err) {
    if (client !== herald) return;
    if (err.status === 404) inboxLoaded = true;
    else say(`Earlier notifications: ${err.message}`);
  }
}

function showUser(user) {
  if (!user || $('user').textContent === user) return;
  $('user').textContent = user;
  tint($('avatar'), user).textContent = user[0].toUpperCase();
  if (!$('send-to').value) $('send-to').value = user;
  $('curl').textContent = `curl ${location.origin}/notify \\\n  -H "Authorization: Bearer $KEY" \\\n` +
    `  -H "Content-Type: application/json" \\\n  -d '{"userId":"${user}","message":{"text":"Hello"}}'`;
}

function showState({state, reason, code, retryInMs}) {
  clearInterval(countdown);
  $('state').dataset.state = state;
  $('state').title = reason ?? '';
  if (state === 'closed') return closed(reason, code);
  if (state === 'waiting') return countDown(Date.now() + retryInMs, reason);
  $('state').textContent = state === 'open' ? 'live' : 'connecting';
  if (state === 'open') say('Live.');
}

function countDown(until, reason) {
  say(`Connection lost (${reason}), reconnecting.`);
  const write = () => {
    $('state').textContent = `reconnecting in ${Math.max(0, Math.ceil((until - Date.now()) / SECOND))} s`;
  };
  write();
  countdown = setInterval(write, SECOND);
}

function closed(reason, code) {
  $('state').textContent = `closed: ${reason}`;
  say(`Closed: ${reason}`);
  if (token) return [401, 403, 4001, 4002].includes(code) ? showGate(`Not connected: ${reason}`) : undefined;
  if (code === 4002) showGate('You were logged out.');
  else if (code === 401 || code === 4001) showGate('Your session is over. Log in again.');
}

function setRead(upTo, count) {
  unread = count;
  readUpTo = Math.max(readUpTo, upTo);
  for (const item of $('notifications').querySelectorAll('.unread')) {
    if (Number(item.dataset.id) <= readUpTo) item.classList.remove('unread');
  }
  showUnread();
}

function showUnread() {
  $('unread').textContent = String(unread);
  $('unread').parentElement.classList.toggle('some', unread > 0);
  $('mark-read').disabled = unread === 0;
  document.title = unread > 0 ? `(${unread}) Herald` : 'Herald';
}

// --- The list ---

// Inserts a notification by its id, newest first; an existing entry stays. An ephemeral
// one has no id and goes on top.
function show(n) {
  const id = n.id ?? '';
  if (id && $('notifications').querySelector(`[data-id="${Number(id)}"]`)) return null;
  const item = el('li', {'data-id': id, class: id > readUpTo ? 'item unread' : 'item'}, ...content(n));
  place(item, id || (herald.lastId ?? 0) + 0.25);
  return item;
}

function place(item, order) {
  const list = $('notifications');
  item.dataset.order = order;
  list.insertBefore(item, [...list.children].find((other) => Number(other.dataset.order) <= order) ?? null);
  if (list.children.length > LONGEST_LIST) list.lastElementChild.remove();
  $('empty').hidden = true;
}

function content({id, ts, kind, message}) {
  const when = new Date(ts || Date.now());
  const head = el('header', {},
    kind ? tint(el('span', {class: 'chip'}, kind), kind) : null,
    id ? null : el('span', {class: 'chip ghost', title: 'Delivered to the connections open now, not stored'}, 'ephemeral'),
    el('time', {datetime: when.toISOString(), title: when.toLocaleString()}, clock(when)));
  return [head, ...body(message), id ? el('footer', {}, `#${id}`) : null].filter(Boolean);
}

function clock(when) {
  const time = when.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', second: '2-digit'});
  const today = when.toDateString() === new Date().toDateString();
  return today ? time : `${when.toLocaleDateString([], {day: 'numeric', month: 'short'})}, ${time}`;
}

// A string, or an object's string `title` and `text`, is shown as text; everything else as
// JSON.
function body(message) {
  if (typeof message === 'string') return [el('p', {class: 'text'}, message)];
  const {title, text} = isObject(message) ? message : {};
  const parts = [];
  if (typeof title === 'string') parts.push(el('h3', {}, title));
  if (typeof text === 'string') parts.push(el('p', {class: 'text'}, text));
  if (!parts.length) return [json(message)];
  const rest = Object.entries(message).filter(([key, value]) => !(['title', 'text'].includes(key) && typeof value === 'string'));
  return rest.length ? [...parts, json(Object.fromEntries(rest))] : parts;
}

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

// Long entries scroll inside and must be focusable by keyboard.
const json = (value) => el('pre', {tabindex: '0'}, JSON.stringify(value, null, 2));

function summary(message) {
  const text = typeof message === 'string' ? message : [message?.title, message?.text].filter((s) => typeof s === 'string').join(', ');
  return (text || JSON.stringify(message)).slice(0, 160);
}

function showGap({after, next}) {
  const item = el('li', {class: 'gap'}, el('strong', {}, 'Something is missing here.'),
    ` The server no longer has everything after #${after}${next ? ` and before #${next}` : ''}.`);
  place(item, next ? next - 0.5 : after + 0.5);
  say('Some notifications are missing.');
}

// --- Sending and leaving ---

async function send() {
  if (!$('send-text').value.trim()) return result('Write a message first.', true);
  const kind = $('send-kind').value.trim();
  const request = {userId: $('send-to').value.trim(), message: composed($('send-text').value)};
  if (kind) request.type = kind;
  if ($('send-ephemeral').checked) request.ephemeral = true;
  try {
    const {id, nodes} = await call('POST', here('notify'), request);
    result(id ? `Stored as #${id}` : 'Delivered, not stored', false, nodes);
    $('send-text').value = '';
  } catch (err) {
    result(err.message, true);
  }
  $('send-text').focus({preventScroll: true});
}

// A JSON object is sent unchanged, any other text as {"text": …}.
function composed(text) {
  try {
    const value = JSON.parse(text);
    if (isObject(value)) return value;
  } catch { /* then it is text */ }
  return {text};
}

function result(text, bad, nodes) {
  const heard = nodes === undefined ? '' : ` · heard by ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`;
  $('send-result').classList.toggle('bad', bad);
  $('send-result').textContent = text + heard;
}

function leave(button, path) {
  $(button).addEventListener('click', () => busy($(button), async () => {
    if (token) return showGate();
    try {
      await call('DELETE', path);
      showGate('You were logged out.');
    } catch (err) {
      if (err.status === 401) showGate('You were logged out.');
      else $('leave-error').textContent = err.message;
    }
  }));
}

onSubmit('login', 'login-submit', logIn);
onSubmit('connect', 'connect-submit', connectWithToken);
onSubmit('send', 'send-submit', send);
leave('logout', 'sessions/current');
leave('logout-all', 'sessions');
$('mark-read').addEventListener('click', () => herald?.read(herald.lastId ?? 0));
$('send-text').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) $('send').requestSubmit();
});

if (demo && pathUser) enter(pathUser);
else showGate();
