// The Node baseline: express, ws and ioredis as the usual tutorial combines them.
// The user comes from the query string, there are no log and no pings, and the
// queue of a slow socket is unbounded.
//
//   node baseline.js <host:port> <redis url> <requests a minute, or off>
//
// Prints "ready" once it listens and its subscription is confirmed.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import express from 'express';
import { Redis } from 'ioredis';
import { WebSocketServer } from 'ws';

const [address, redisURL, limit] = process.argv.slice(2);
const [host, port] = address.split(':');

const options = { maxRetriesPerRequest: 3, retryStrategy: (times) => Math.min(times * 50, 2000) };
const redis = new Redis(redisURL, options);
const subscriber = new Redis(redisURL, options); // a subscribed connection accepts no other commands
for (const client of [redis, subscriber]) client.on('error', (error) => console.error('redis:', error.message));

// Sockets by user.
const connections = new Map();

function join(userId, socket) {
  if (!connections.has(userId)) connections.set(userId, new Set());
  connections.get(userId).add(socket);
  socket.on('close', () => leave(userId, socket));
  socket.on('error', () => {});
}

function leave(userId, socket) {
  const sockets = connections.get(userId);
  sockets?.delete(socket);
  if (sockets?.size === 0) connections.delete(userId);
}

function publish(channel, data) {
  return redis.publish(channel, JSON.stringify({ data, timestamp: Date.now() }));
}

subscriber.on('pmessage', (pattern, channel, raw) => {
  const sockets = connections.get(channel.split(':')[1]);
  if (!sockets) return;
  let message;
  try {
    message = JSON.parse(raw);
  } catch (error) {
    console.error('not JSON on', channel);
    return;
  }
  const text = JSON.stringify(message);
  for (const socket of sockets) {
    if (socket.readyState === socket.OPEN) socket.send(text);
  }
});

redis.defineCommand('slidingWindow', { numberOfKeys: 1, lua: readFileSync(new URL('window.lua', import.meta.url), 'utf8') });

function rateLimit(windowMs, max) {
  return async (request, response, next) => {
    try {
      const now = Date.now();
      const member = `${now}-${randomBytes(8).toString('hex')}`;
      const [allowed, remaining, resetAt] = await redis.slidingWindow(`ratelimit:${request.ip}`, now, windowMs, max, member);
      response.set({ 'X-RateLimit-Limit': max, 'X-RateLimit-Remaining': remaining, 'X-RateLimit-Reset': Math.ceil(resetAt / 1000) });
      if (!allowed) {
        const retryAfter = Math.ceil((resetAt - now) / 1000);
        response.status(429).set('Retry-After', retryAfter).json({ error: 'Too many requests', retryAfter });
        return;
      }
    } catch (error) {
      console.error('rate limiter:', error.message); // fails open
    }
    next();
  };
}

const app = express();
app.disable('x-powered-by');
app.use(express.json());
if (limit !== 'off') app.use(rateLimit(60_000, Number(limit)));

app.post('/notify', async (request, response) => {
  const { userId, message } = request.body;
  response.json({ ok: true, receivers: await publish(`user:${userId}:events`, message) });
});

const server = createServer(app);
new WebSocketServer({ server }).on('connection', (socket, request) => {
  const userId = new URL(request.url, 'http://any').searchParams.get('userId');
  if (!userId) return socket.close(1008, 'userId is missing');
  join(userId, socket);
});

await subscriber.psubscribe('user:*:events');
server.listen(Number(port), host, () => console.log('ready'));
