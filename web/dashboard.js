// The operators' dashboard: polls /stats.json once a second, computes rates from its
// counters, and draws up to five minutes since the page was opened.

const second = 1000;
const kept = 300; // points of a chart
const $ = (id) => document.getElementById(id);

// value is a figure of one snapshot; rate of two, per second.
const value = (pick) => (now) => pick(now);
const rate = (pick) => (now, before) => {
  if (!before || before.startedAt !== now.startedAt) return null;
  const [a, b] = [pick(before), pick(now)];
  return a == null || b == null || b < a ? null : (b - a) / now.elapsed;
};

const count = (n) => (n >= 1e6 ? `${(n / 1e6).toFixed(1)}M` : n >= 1e4 ? `${(n / 1e3).toFixed(1)}k` : n >= 100 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1));
const bytes = (n) => {
  for (const unit of ['B', 'K', 'M', 'G']) {
    if (n < 1024) return `${unit === 'B' ? n.toFixed(0) : n.toFixed(1)}${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)}T`;
};
const millis = (n) => (Math.abs(n) >= 10 || n === 0 ? `${n.toFixed(0)} ms` : `${n.toFixed(2)} ms`);
const span = (seconds) => {
  const [d, h, m] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(seconds)} s`;
};

const info = (s) => s.redis.report.info;

// decisions returns a limiter's three counters.
const decisions = (scope) => [
  ['allowed', rate((s) => s.limiters[scope].allowed)],
  ['denied', rate((s) => s.limiters[scope].denied)],
  ['failed open', rate((s) => s.limiters[scope].failedOpen)],
];

const charts = {
  'node-charts': [
    ['connections', 'Connections', count, [['open', value((s) => s.connections)], ['users', value((s) => s.users)]]],
    ['messages', 'Messages per second', count, [['delivered', rate((s) => s.delivered)], ['received', rate((s) => s.received)]]],
    ['publishes', 'Published per second, by decision', count, decisions('publish')],
    ['attempts', 'Connection attempts per second', count, decisions('connect')],
    ['repairs', 'Repairs per second', count, [['repairs', rate((s) => s.repairs)], ['repaired', rate((s) => s.repaired)], ['gaps', rate((s) => s.gaps)]]],
    ['memory', 'Memory of this process', bytes, [['Go', value((s) => s.memoryBytes)]]],
  ],
  'redis-charts': [
    ['round-trip', 'Round trip', millis, [['median', value((s) => (s.redis.up ? s.redis.report.roundTripNanoseconds / 1e6 : null))]]],
    ['redis-memory', 'Used memory', bytes, [['used', value((s) => info(s)?.usedMemoryBytes)]]],
    ['redis-clients', 'Connected clients', count, [['clients', value((s) => info(s)?.connectedClients)]]],
    ['redis-keys', 'Keys', count, [['keys', value((s) => info(s)?.keys)]]],
  ],
};

// element creates an element with text and children; nothing is parsed as HTML.
function element(name, properties = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, v] of Object.entries(properties)) {
    if (key === 'data') Object.assign(e.dataset, v);
    else e[key] = v;
  }
  e.append(...children);
  return e;
}

const times = []; // seconds, of every chart

// timeRange is the range of the time axis: all points, and at least a minute. uPlot's
// own minimum and maximum span a day while there is one point.
function timeRange() {
  const last = times.at(-1) ?? 60;
  return [Math.min(times[0] ?? 0, last - 60), last];
}

class Chart {
  constructor(place, id, title, format, series) {
    this.format = format;
    this.series = series;
    this.points = series.map(() => []);
    this.now = series.map(([label], i) => element('span', { className: `s${i + 1}` }, element('b', {}, '–'), label));
    this.plot = element('div', { className: 'plot' });
    place.append(element('div', { className: 'chart', id }, element('h3', {}, title), element('div', { className: 'now' }, ...this.now), this.plot));
  }

  // draw recreates the chart: uPlot accepts colours only in its constructor.
  draw() {
    this.uplot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: color('soft'), grid: { stroke: color('grid'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    this.uplot = new window.uPlot({
      width: this.plot.clientWidth, height: this.plot.clientHeight,
      legend: { show: false }, cursor: { show: false }, padding: [8, 4, 0, 0],
      scales: { x: { range: timeRange }, y: { range: (_, min, max) => [0, max > 0 ? max * 1.15 : 1] } },
      axes: [
        { ...axis, size: 22, space: 70, values: (_, ticks) => ticks.map((t) => new Date(t * second).toTimeString().slice(0, 8)) },
        { ...axis, size: 52, space: 28, values: (_, ticks) => ticks.map(this.format) },
      ],
      series: [{}, ...this.series.map((_, i) => ({ stroke: color(`s${i + 1}`), width: 1.75, points: { show: false }, fill: i === 0 && this.series.length === 1 ? `${color('s1')}22` : undefined }))],
    }, this.data(), this.plot);
  }

  data() { return [times, ...this.points]; }

  add(now, before) {
    this.series.forEach(([, figure], i) => {
      const v = figure(now, before) ?? null;
      this.points[i].push(v);
      if (this.points[i].length > kept) this.points[i].shift();
      this.now[i].firstChild.textContent = v === null ? '–' : this.format(v);
    });
    this.uplot.setData(this.data());
  }

  fit() { this.uplot.setSize({ width: this.plot.clientWidth, height: this.plot.clientHeight }); }
}

function rows(id, pairs, empty = 'none') {
  const list = pairs.length ? pairs : [[empty, '']];
  $(id).replaceChildren(...list.map(([head, ...cells]) => element('tr', {}, element('th', { scope: 'row' }, head), ...cells.map((c) => element('td', {}, String(c))))));
}

const meanings = {
  1000: 'closed by the client', 1002: 'broken WebSocket', 1003: 'binary frame', 1007: 'not UTF-8', 1009: 'too big',
  4001: 'credentials expired', 4002: 'session revoked', 4003: 'protocol misuse', 4004: 'too many connections of a user',
  4101: 'draining', 4102: 'too slow', 4103: 'overloaded',
};

function showTables(s) {
  rows('closes', Object.entries(s.closed).map(([code, n]) => [`${code} ${meanings[code] ?? ''}`, n.toLocaleString()]));
  rows('totals', [
    ['messages received, delivered', `${s.received.toLocaleString()}, ${s.delivered.toLocaleString()}`],
    ['for users not connected here', s.absent.toLocaleString()],
    ['repairs, messages repaired, gaps', `${s.repairs.toLocaleString()}, ${s.repaired.toLocaleString()}, ${s.gaps.toLocaleString()}`],
    ['duplicates dropped, malformed dropped', `${s.duplicates.toLocaleString()}, ${s.malformed.toLocaleString()}`],
    ['subscriptions made, lost', `${s.subscriptions.toLocaleString()}, ${s.lost.toLocaleString()}`],
    ['dead connections closed', s.dead.toLocaleString()],
    ['requests refused', Object.entries(s.refused).filter(([, n]) => n).map(([status, n]) => `${status}: ${n.toLocaleString()}`).join(', ') || 0],
    ['goroutines', s.goroutines.toLocaleString()],
  ]);
}

function showRedis({ redis }) {
  const { info: i, config, subscribers, slowLog, notPermitted = [] } = redis.report;
  $('redis-about').textContent = redis.up ? (i ? `${i.version}, ${i.role}, up ${span(i.uptimeNanoseconds / 1e9)}` : 'embedded, or INFO is not permitted')
    : `does not answer; figures are ${span(redis.ageSeconds)} old`;
  const told = (redis.findings ?? []).filter((f) => f.level !== 'ok');
  $('checks-sound').hidden = told.length > 0;
  $('checks').replaceChildren(...told.map((f) => element('li', {}, element('span', { className: 'level', data: { level: f.level } }, f.level),
    element('b', {}, f.name), element('p', {}, f.text), element('p', { className: 'soft' }, f.advice ?? ''))));
  const figures = [];
  if (i) {
    figures.push(['memory', `${bytes(i.usedMemoryBytes)} of ${i.maxMemoryBytes ? bytes(i.maxMemoryBytes) : 'no limit'}, ${i.maxMemoryPolicy}`]);
    figures.push(['keys, with a lifetime', `${i.keys.toLocaleString()}, ${i.expiringKeys.toLocaleString()}`]);
    figures.push(['evicted, expired', `${i.evictedKeys.toLocaleString()}, ${i.expiredKeys.toLocaleString()}`]);
    figures.push(['persistence', i.aofEnabled ? `append-only file${config ? `, ${config.appendFsync}` : ''}` : config?.save ? 'snapshots' : 'none']);
    for (const r of i.replicas ?? []) figures.push([`replica ${r.addr}`, `${r.state}, ${bytes(r.lagBytes)} and ${r.lagNanoseconds / 1e9} s behind`]);
  }
  for (const [name, r] of Object.entries(redis.hitRatios ?? {})) {
    figures.push([`hit ratio of ${name}`, r.lookups ? `${(100 * r.hits / r.lookups).toFixed(0)} % of ${r.lookups.toLocaleString()}` : '–']);
  }
  if (subscribers) figures.push(['subscriber buffer: this node, largest', `${bytes(subscribers.ownBufferBytes)}, ${bytes(subscribers.largestBufferBytes)}`]);
  if (redis.report.clockDifferenceNanoseconds != null) figures.push(['clock difference', millis(redis.report.clockDifferenceNanoseconds / 1e6)]);
  if (notPermitted.length) figures.push(['not permitted', notPermitted.join(', ')]);
  rows('figures', figures);
  rows('slow', (slowLog?.entries ?? []).slice(0, 10).map((e) => [new Date(e.at).toTimeString().slice(0, 8), millis(e.tookNanoseconds / 1e6), `${e.command} ${e.key ?? ''}`, e.client ?? '']));
}

function showState(state, text) {
  $('state').dataset.state = state;
  $('state').textContent = text;
}

const all = Object.entries(charts).flatMap(([place, list]) => list.map((c) => new Chart($(place), ...c)));
const drawAll = () => all.forEach((c) => c.draw());

let before = null;

async function poll() {
  try {
    const answer = await fetch('/stats.json', { signal: AbortSignal.timeout(5 * second), cache: 'no-store' });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
  } catch (err) {
    showState('bad', `this node does not answer (${err.message})`);
  } finally {
    setTimeout(poll, second);
  }
}

function show(s) {
  const at = Date.parse(s.at) / second;
  s.elapsed = before ? Math.max(at - before.seconds, 0.001) : 1;
  s.seconds = at;
  times.push(at);
  if (times.length > kept) times.shift();
  all.forEach((c) => c.add(s, before));
  before = s;
  showState(s.status === 'ok' ? 'ok' : 'bad', s.status === 'ok' ? 'ready' : `not ready: ${s.detail}`);
  $('about').textContent = `version ${s.version}, up ${span(s.uptimeSeconds)}`;
  showTables(s);
  showRedis(s);
}

drawAll();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
new ResizeObserver(() => all.forEach((c) => c.fit())).observe(document.body);
poll();
