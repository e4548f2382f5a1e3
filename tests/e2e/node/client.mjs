// One WebSocket client of the `ws` package, driven by its parent.
//   node client.mjs <url> <headers as a JSON object>
// Commands come as JSON lines on stdin, events leave as JSON lines on stdout:
//   {"do":"text","data":…}  {"do":"raw","base64":…} as a text message  {"do":"binary","base64":…}
//   {"do":"ping"}  {"do":"close"}  {"do":"drop"}
//   {"event":"open"}  {"event":"message","data":…}  {"event":"pong"}  {"event":"close","code":…,"reason":…}
//   {"event":"refused","status":…}
// It ends when the connection does, or when stdin does.
import {createInterface} from 'node:readline';
import WebSocket from 'ws';

const [url, headers] = process.argv.slice(2);
const ws = new WebSocket(url, ['herald.v1'], {headers: JSON.parse(headers), skipUTF8Validation: false});
const tell = (event, more = {}) => process.stdout.write(JSON.stringify({event, ...more}) + '\n');

ws.on('open', () => tell('open'));
ws.on('message', (data, isBinary) => tell('message', {data: data.toString('utf8'), isBinary}));
ws.on('pong', () => tell('pong'));
ws.on('unexpected-response', (_, res) => { tell('refused', {status: res.statusCode}); process.exit(0); });
ws.on('error', () => {}); // a close follows
ws.on('close', (code, reason) => { tell('close', {code, reason: reason.toString('utf8')}); commands.close(); });

const bytes = (command) => Buffer.from(command.base64, 'base64');
const actions = {
  text: (c) => ws.send(c.data),
  raw: (c) => ws.send(bytes(c), {binary: false}),
  binary: (c) => ws.send(bytes(c), {binary: true}),
  ping: () => ws.ping(),
  close: () => ws.close(1000, 'done'),
  drop: () => ws.terminate(),
};

const commands = createInterface({input: process.stdin});
commands.on('line', (line) => {
  const command = JSON.parse(line);
  actions[command.do](command);
});
commands.on('close', () => ws.terminate());
