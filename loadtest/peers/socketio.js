// socket.io with its Redis adapter, with one socket.io room per user.
//
//   node socketio.js <host:port> <redis url>
//
// Prints "ready" once it listens.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import express from 'express';
import { Redis } from 'ioredis';
import { Server } from 'socket.io';

const [address, redisURL] = process.argv.slice(2);
const [host, port] = address.split(':');

const publisher = new Redis(redisURL);
const subscriber = publisher.duplicate();

const app = express();
app.disable('x-powered-by');
app.use(express.json());
const server = createServer(app);
const io = new Server(server, { adapter: createAdapter(publisher, subscriber), transports: ['websocket'], serveClient: false });

io.on('connection', (socket) => {
  const { userId } = socket.handshake.query;
  if (typeof userId !== 'string') return socket.disconnect(true);
  socket.join(`user:${userId}`);
});

app.post('/notify', (request, response) => {
  const { userId, message } = request.body;
  io.to(`user:${userId}`).emit('notification', message);
  response.json({ ok: true });
});

server.listen(Number(port), host, () => console.log('ready'));
