// What the tests of the JavaScript SDK and of the built-in page share: a real server on a database
// of its own, a gate to cut its clients off, and journals of events to wait on.

import { spawn, spawnSync } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync, openSync, closeSync } from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { Centrifuge as Centrifuge580 } from "centrifuge";
import { Centrifuge as Protobuf580 } from "centrifuge/build/protobuf";
import { Centrifuge as Centrifuge571 } from "centrifuge-5.7.1";
import { Centrifuge as Protobuf571 } from "centrifuge-5.7.1/build/protobuf";
import WebSocket from "ws";

/** Longest wait for anything; reached only when something is broken. */
export const DEADLINE_MS = 30_000;

export const SECRET = "the secret of the tests, long enough";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const binary = process.env.ROOMCAST_BIN ?? path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, "target"), "debug/roomcast");

export const SDKS = [
  ["5.8.0", Centrifuge580],
  ["5.8.0 in Protobuf", speakingJson(Protobuf580)],
  ["5.7.1", Centrifuge571],
  ["5.7.1 in Protobuf", speakingJson(Protobuf571)],
];

/** The databases to test on: both, or those of ROOMCAST_TEST_ON. */
export const DATABASES = (process.env.ROOMCAST_TEST_ON ?? "sqlite,postgres").split(",");

// ---- Protobuf -----------------------------------------------------------------------------------

/**
 * The Protobuf build of the SDK for tests that are written in JSON: it sends and gives bytes, where they have values.
 */
function speakingJson(Sdk) {
  return class extends Sdk {
    constructor(url, options) {
      super(url, withBytes(options));
    }

    on(kind, listener) {
      return super.on(kind, (context) => listener(withValues(context)));
    }

    /** Publishing and history go through the client. */
    newSubscription(channel, options) {
      const made = super.newSubscription(channel, withBytes(options));
      const [on, presence] = [made.on.bind(made), made.presence.bind(made)];
      return Object.assign(made, {
        on: (kind, listener) => on(kind, (context) => listener(withValues(context))),
        presence: async () => withValues(await presence()),
      });
    }

    async rpc(method, data) { return withValues(await super.rpc(method, bytes(data))); }
    async publish(channel, data) { return super.publish(channel, bytes(data)); }
    async history(channel, options) { return withValues(await super.history(channel, options)); }
    async presence(channel) { return withValues(await super.presence(channel)); }
  };
}

const bytes = (value) => new TextEncoder().encode(JSON.stringify(value ?? null));

/** Options whose data are bytes. */
function withBytes(options = {}) {
  return options.data === undefined ? options : { ...options, data: bytes(options.data) };
}

/** What the SDK gives, with values in the place of bytes. */
function withValues(given) {
  if (given instanceof Uint8Array) return given.length > 0 ? JSON.parse(new TextDecoder().decode(given)) : undefined;
  if (Array.isArray(given)) return given.map(withValues);
  // Up to 5.7.1 positions are objects of their own where the package `long` is installed.
  if (typeof given?.toNumber === "function") return given.toNumber();
  if (given === null || typeof given !== "object" || given instanceof Error) return given;
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, withValues(value)]));
}

// ---- the server ---------------------------------------------------------------------------------

/** Starts a server that ends with the test. `config` is TOML; a secured one says `secured: true`. */
export async function startServer(t, { database = "sqlite", config = "", secured = false } = {}) {
  const server = new Server(database, config, secured);
  t.after(() => server.close());
  await server.start();
  return server;
}

class Server {
  constructor(database, config, secured) {
    this.folder = mkdtempSync(path.join(os.tmpdir(), "roomcast-test-"));
    this.logFile = path.join(this.folder, "server.log");
    this.configFile = path.join(this.folder, "roomcast.toml");
    const options = config.includes("[client]") ? config : `${config}\n[client]\n`;
    const secret = secured ? `[client]\ntoken_hmac_secret = "${SECRET}"` : "[client]";
    writeFileSync(this.configFile, `${options.replace("[client]", secret)}\n`);
    this.databaseUrl = database === "postgres" ? createDatabase() : `sqlite:${path.join(this.folder, "chat.db")}`;
  }

  get pageUrl() { return `http://127.0.0.1:${this.port}/`; }
  get url() { return `ws://127.0.0.1:${this.port}/connection/websocket`; }
  get log() { return existsSync(this.logFile) ? readFileSync(this.logFile, "utf8") : ""; }

  /** Starts it, the second time on the port of the first. */
  async start() {
    if (!existsSync(binary)) throw new Error(`${binary} is not built: run cargo build`);
    for (let attempt = 0; ; attempt++) {
      // Not a port of the ephemeral range: nobody's outgoing connection may take it during a restart.
      this.port ??= 10_000 + Math.floor(Math.random() * 20_000);
      if (await this.launch()) return;
      if (attempt === 20 || !/in use/i.test(this.log)) throw new Error(`the server does not start:\n${this.log}`);
      this.port = undefined;
    }
  }

  async launch() {
    const log = openSync(this.logFile, "a");
    const args = ["serve", "--config", this.configFile, "--listen", `127.0.0.1:${this.port}`, "--database", this.databaseUrl];
    this.child = spawn(binary, args, { cwd: this.folder, env: bareEnvironment(), stdio: ["ignore", "pipe", log] });
    closeSync(log);
    const { child } = this;
    const orphan = () => child.kill("SIGKILL"); // when the tests end before their teardown
    process.once("exit", orphan);
    this.exited = new Promise((resolve) => child.once("exit", (code, signal) => {
      process.off("exit", orphan);
      resolve({ code, signal });
    }));
    const running = new Promise((resolve) => {
      let text = "";
      this.child.stdout.setEncoding("utf8").on("data", (chunk) => {
        text += chunk;
        if (text.includes(`http://127.0.0.1:${this.port}/\n`)) resolve(true);
      });
    });
    return within(Promise.race([running, this.exited.then(() => false)]), "the server to start");
  }

  /** As `kill -9` and power cuts do it. */
  async kill() {
    this.child.kill("SIGKILL");
    await within(this.exited, "the killed server to be gone");
  }

  /** In good order; gives the exit code. */
  async stop() {
    this.child.kill("SIGTERM");
    const { code } = await within(this.exited, "the server to stop");
    return code;
  }

  async close() {
    const running = this.child && this.child.exitCode === null && this.child.signalCode === null;
    const code = running ? await this.stop().catch(() => (this.child.kill("SIGKILL"), "none")) : 0;
    const log = this.log;
    rmSync(this.folder, { recursive: true, force: true });
    if (code !== 0) throw new Error(`the server ended with ${code}:\n${log}`);
    if (log.includes("panicked")) throw new Error(`the server panicked:\n${log}`);
  }

  /** A token made by the command line, as its reader would: `token("ann", "--expires", "2s")`. */
  token(user, ...more) {
    const args = ["token", "--config", this.configFile, "--user", user, ...more];
    const made = spawnSync(binary, args, { env: bareEnvironment(), encoding: "utf8" });
    if (made.status !== 0) throw new Error(`no token: ${made.stderr}`);
    return made.stdout.trim();
  }

  /** A call of the HTTP API. */
  async api(method, params = {}, key) {
    const headers = { "Content-Type": "application/json", ...(key && { "X-API-Key": key }) };
    const answer = await fetch(`${this.pageUrl}api/${method}`, { method: "POST", headers, body: JSON.stringify(params) });
    return answer.json();
  }
}

/** Settings of the one who runs the tests are none of the server's. */
function bareEnvironment() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ROOMCAST_")));
}

/** A token with exactly these claims, as a backend signs it. */
export function sign(claims, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

/** Unix time, `seconds` from now. */
export const unixTime = (seconds = 0) => Math.floor(Date.now() / 1000) + seconds;

function createDatabase() {
  const cluster = process.env.ROOMCAST_TEST_DATABASE_URL;
  if (!cluster) throw new Error("no PostgreSQL to test on: run by tests/with-postgres COMMAND, or with ROOMCAST_TEST_ON=sqlite");
  const name = `roomcast_${randomBytes(6).toString("hex")}`;
  const made = spawnSync("psql", ["-q", "-d", cluster, "-c", `CREATE DATABASE ${name}`], { encoding: "utf8" });
  if (made.status !== 0) throw new Error(`no database on ${cluster}: ${made.error ?? made.stderr}`);
  const url = new URL(cluster);
  url.pathname = `/${name}`;
  return url.href;
}

// ---- cutting clients off ------------------------------------------------------------------------

/** A door between clients and the server: shut it and they are cut off, open it and they may come back. */
export async function openGate(t, server) {
  const gate = new Gate(server);
  await gate.listen();
  t.after(() => gate.close());
  return gate;
}

class Gate {
  constructor(server) {
    this.server = server;
    this.sockets = new Set();
    this.isOpen = true;
    this.door = net.createServer((inner) => this.admit(inner));
  }

  listen() {
    return new Promise((resolve) => this.door.listen(0, "127.0.0.1", resolve));
  }

  get url() { return `ws://127.0.0.1:${this.door.address().port}/connection/websocket`; }
  get pageUrl() { return `http://127.0.0.1:${this.door.address().port}/`; }

  admit(inner) {
    if (!this.isOpen) return inner.destroy();
    const outer = net.connect(this.server.port, "127.0.0.1");
    for (const [socket, other] of [[inner, outer], [outer, inner]]) {
      this.sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => { this.sockets.delete(socket); other.destroy(); });
      socket.pipe(other);
    }
  }

  shut() {
    this.isOpen = false;
    for (const socket of this.sockets) socket.destroy();
  }

  open() { this.isOpen = true; }

  close() {
    this.shut();
    return new Promise((resolve) => this.door.close(resolve));
  }
}

// ---- clients ------------------------------------------------------------------------------------

/**
 * The socket of a browser: one event a turn of the loop. By default `ws` fires those of several
 * frames at once, and the SDK up to 5.7.1 then mixes up their publications, whoever the server is.
 */
export class BrowserSocket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { allowSynchronousEvents: false });
  }
}

/** A client of the SDK that ends with the test. `user` names it on an open server. */
export function client(t, Centrifuge, url, { user, ...options } = {}) {
  const made = new Centrifuge(url, {
    websocket: BrowserSocket,
    minReconnectDelay: 20, maxReconnectDelay: 200,
    ...(user && { data: { user } }),
    ...options,
  });
  made.journal = new Journal(made, ["connecting", "connected", "disconnected", "error", "subscribed", "unsubscribed", "publication", "join", "leave"]);
  t.after(() => made.disconnect());
  return made;
}

/** A connected client. */
export async function connect(t, Centrifuge, url, options) {
  const made = client(t, Centrifuge, url, options);
  made.connect();
  await made.journal.next("connected");
  return made;
}

/** A subscription with a journal. */
export function subscription(client, channel, options) {
  const made = client.newSubscription(channel, { minResubscribeDelay: 20, maxResubscribeDelay: 200, ...options });
  made.journal = new Journal(made, ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"]);
  return made;
}

/** A subscription that stands. */
export async function subscribe(client, channel, options) {
  const made = subscription(client, channel, options);
  made.subscribe();
  await made.journal.next("subscribed");
  return made;
}

// ---- waiting ------------------------------------------------------------------------------------

/** Every event of a client or subscription, in order, to look at and to wait for. */
export class Journal {
  constructor(emitter, kinds) {
    this.events = [];
    this.waiting = new Set();
    for (const kind of kinds) emitter.on(kind, (context) => this.note(kind, context));
  }

  note(kind, context) {
    this.events.push({ kind, context });
    for (const check of [...this.waiting]) check();
  }

  of(kind) { return this.events.filter((event) => event.kind === kind).map((event) => event.context); }

  get offsets() { return this.of("publication").map(({ offset }) => offset); }
  get data() { return this.of("publication").map(({ data }) => data); }

  /** Waits until `condition` holds, which is looked at with every event. */
  until(what, condition) {
    let check;
    const holds = new Promise((resolve, reject) => {
      check = () => {
        try {
          if (condition(this)) resolve();
        } catch (error) { reject(error); }
      };
      this.waiting.add(check);
      check();
    });
    return within(holds, what, () => `; last: ${JSON.stringify(this.events.slice(-20))}`).finally(() => this.waiting.delete(check));
  }

  /** Waits until there are `count` events of a kind, and gives the last of them. */
  async next(kind, count = 1) {
    await this.until(`${kind}, ${count} times`, () => this.of(kind).length >= count);
    return this.of(kind)[count - 1];
  }
}

/** A promise that may not take for ever. */
export function within(promise, what, detail = () => "") {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what} ${detail()}`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The numbers from `first` to `last`. */
export const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** The code an SDK call was refused with. */
export async function codeOf(promise) {
  try {
    await promise;
  } catch (error) {
    return error.code;
  }
  return "no error";
}

/** Runs the tests of `define` with every SDK on every database. */
export function everywhere(describe, define) {
  for (const [version, Centrifuge] of SDKS) {
    for (const database of DATABASES) {
      describe(`centrifuge-js ${version} on ${database}`, () => define({ version, Centrifuge, database }));
    }
  }
}
