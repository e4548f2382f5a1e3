// An Express app with express-session and connect-redis, as their READMEs say.
//   node express.mjs <Redis URL> <secret>...      the first secret signs, all verify
// It tells {"event":"listening","port":…} on stdout and ends when stdin does.
//   POST /login?user=…   POST /logout   POST /forget (the session stays, its user goes)   GET /me
import express from 'express';
import session from 'express-session';
import {RedisStore} from 'connect-redis';
import {createClient} from 'redis';

const [url, ...secret] = process.argv.slice(2);
const client = createClient({url});
await client.connect();

const app = express();
app.use(session({store: new RedisStore({client}), secret, resave: false, saveUninitialized: false, cookie: {maxAge: 3_600_000}}));

app.post('/login', (req, res, next) => req.session.regenerate((err) => {
  if (err) return next(err);
  req.session.passport = {user: req.query.user};
  req.session.save((err) => err ? next(err) : res.sendStatus(204));
}));
app.post('/logout', (req, res, next) => req.session.destroy((err) => err ? next(err) : res.sendStatus(204)));
app.post('/forget', (req, res) => {
  delete req.session.passport;
  res.sendStatus(204);
});
app.get('/me', (req, res) => res.json({user: req.session.passport?.user ?? null}));

const server = app.listen(0, '127.0.0.1', () =>
  process.stdout.write(JSON.stringify({event: 'listening', port: server.address().port}) + '\n'));
process.stdin.on('end', () => process.exit(0)).resume();
