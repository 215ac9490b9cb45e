// Rooms as a chat uses them: messages, history, presence, comings and goings.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import WebSocket from "ws";

import { BrowserSocket, Journal, codeOf, client, connect, everywhere, range, startServer, subscribe, subscription, within } from "./support.mjs";

everywhere(describe, ({ Centrifuge, database }) => {
  test("two people chat, each sees every message once, in order, with its sender", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const annsLobby = await subscribe(ann, "lobby");
    const bobsLobby = await subscribe(bob, "lobby");

    await annsLobby.publish({ text: "hello, Bob" });
    await bobsLobby.publish({ text: "hello, Ann" });
    await annsLobby.publish({ text: "bye" });

    const said = [["hello, Bob", "ann", 1], ["hello, Ann", "bob", 2], ["bye", "ann", 3]];
    for (const lobby of [annsLobby, bobsLobby]) {
      await lobby.journal.next("publication", 3);
      const seen = lobby.journal.of("publication");
      assert.deepEqual(seen.map(({ data, info, offset }) => [data.text, info.user, offset]), said);
    }
    const { client: id } = ann.journal.of("connected")[0];
    assert.equal(bobsLobby.journal.of("publication")[0].info.client, id);
  });

  test("a subscription tells its position, and that it can be recovered", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url);
    await (await subscribe(ann, "other")).publish("one");
    const lobby = await subscribe(ann, "lobby");
    const [{ recoverable, positioned, wasRecovering, streamPosition }] = lobby.journal.of("subscribed");
    assert.deepEqual([recoverable, positioned, wasRecovering], [true, true, false]);
    assert.match(streamPosition.epoch, /^\w{8,}$/);
    await lobby.publish("two");
    const { offset } = await lobby.journal.next("publication");
    assert.equal(offset, streamPosition.offset + 1);
  });

  test("history pages forwards and backwards", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    for (const n of range(1, 7)) await lobby.publish({ n });

    const { epoch } = await lobby.history({ limit: 0 });
    const page = async (options) => {
      const { publications, offset, epoch: same } = await lobby.history(options);
      assert.deepEqual([offset, same], [7, epoch]);
      for (const publication of publications) assert.deepEqual(publication.data, { n: publication.offset });
      return publications.map((publication) => publication.offset);
    };
    assert.deepEqual(await page({ limit: 0 }), []);
    assert.deepEqual(await page({ limit: -1 }), range(1, 7));
    assert.deepEqual(await page({ limit: 3 }), [1, 2, 3]);
    assert.deepEqual(await page({ limit: 3, reverse: true }), [7, 6, 5]);
    assert.deepEqual(await page({ limit: 2, since: { offset: 3, epoch } }), [4, 5]);
    assert.deepEqual(await page({ limit: 10, since: { offset: 5, epoch } }), [6, 7]);
    assert.deepEqual(await page({ limit: 2, since: { offset: 5, epoch }, reverse: true }), [4, 3]);
    assert.deepEqual(await page({ limit: 10, since: { offset: 7, epoch } }), []);
    assert.equal(await codeOf(lobby.history({ limit: 1, since: { offset: 3, epoch: "elsewhere" } })), 112);
    assert.equal(await codeOf(lobby.history({ limit: 1, since: { offset: 0, epoch }, reverse: true })), 107);
  });

  test("presence and its counts name who is here", async (t) => {
    const server = await startServer(t, { database });
    const [ann, again, bob] = await Promise.all(["ann", "ann", "bob"].map((user) => connect(t, Centrifuge, server.url, { user })));
    const lobbies = await Promise.all([ann, again, bob].map((one) => subscribe(one, "lobby")));
    const { clients } = await lobbies[0].presence();
    const expected = [ann, again, bob].map((one) => one.journal.of("connected")[0].client).sort();
    assert.deepEqual(Object.keys(clients).sort(), expected);
    assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ["ann", "ann", "bob"]);
    assert.deepEqual(await lobbies[0].presenceStats(), { numClients: 3, numUsers: 2 });

    again.disconnect();
    await lobbies[2].journal.next("leave");
    assert.deepEqual(await lobbies[2].presenceStats(), { numClients: 2, numUsers: 2 });
  });

  test("comings and goings are told, one's own coming too and one's own going not", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    assert.equal((await lobby.journal.next("join")).info.user, "ann");

    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const bobs = await subscribe(bob, "lobby");
    assert.equal((await bobs.journal.next("join")).info.user, "bob");
    assert.equal((await lobby.journal.next("join", 2)).info.user, "bob");

    bobs.unsubscribe();
    assert.equal((await lobby.journal.next("leave")).info.user, "bob");
    assert.deepEqual(bobs.journal.of("leave"), []);

    bobs.subscribe();
    await lobby.journal.next("join", 3);
    bob.disconnect();
    assert.equal((await lobby.journal.next("leave", 2)).info.user, "bob");
  });

  test("leaving and coming back ten times at once ends inside, once", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    for (const _ of range(1, 10)) {
      lobby.unsubscribe();
      lobby.subscribe();
    }
    await lobby.journal.until("the subscription to stand", () => lobby.state === "subscribed");
    await lobby.publish("after the burst");
    await lobby.publish("and after that");
    await lobby.journal.until("both messages", (journal) => journal.data.includes("and after that"));
    assert.deepEqual(lobby.journal.data, ["after the burst", "and after that"]);
    assert.deepEqual(await lobby.presenceStats(), { numClients: 1, numUsers: 1 });
    assert.deepEqual(ann.journal.of("connecting").length, 1);
  });

  test("500 messages sent without waiting keep their order", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const lobby = await subscribe(bob, "lobby");
    const annsLobby = await subscribe(ann, "lobby");
    await Promise.all(range(1, 500).map((n) => annsLobby.publish({ n })));
    await lobby.journal.next("publication", 500);
    assert.deepEqual(lobby.journal.data.map(({ n }) => n), range(1, 500));
    assert.deepEqual(lobby.journal.offsets, range(1, 500));
  });

  test("payloads arrive as they were sent", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url);
    const lobby = await subscribe(ann, "lobby");
    const payloads = [
      "", 0, false, [], {}, [null], -1.5e-7, "line\nline\r\n\u2028\u2029\u0001", "héllo 👋🏽 שלום", '</script>"\\',
      { nested: { deep: [{ er: true }] }, "": "empty key" }, "x".repeat(60_000),
    ];
    for (const payload of payloads) await lobby.publish(payload);
    await lobby.journal.next("publication", payloads.length);
    assert.deepEqual(lobby.journal.data, payloads);
    const { publications } = await lobby.history({ limit: -1 });
    assert.deepEqual(publications.map(({ data }) => data), payloads);
  });

  test("a hundred rooms of one client are entered in one frame", async (t) => {
    const server = await startServer(t, { database });
    const ann = client(t, Centrifuge, server.url, { user: "ann" });
    const rooms = range(1, 100).map((n) => subscription(ann, `room-${n}`));
    for (const room of rooms) room.subscribe();
    ann.connect();
    await Promise.all(rooms.map((room) => room.journal.next("subscribed")));
    await rooms[41].publish("to 42");
    await rooms[41].journal.next("publication");
    assert.deepEqual(rooms.filter((room) => room.journal.data.length > 0).map((room) => room.channel), ["room-42"]);
  });

  test("what is declined ends what needs it, and nothing else", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    // Compaction is asked for with every subscribe.
    const room = await subscribe(ann, "lobby", { delta: "fossil" });
    for (const [made, code] of [[ann.newMapSubscription("a-map"), 103], [ann.newSharedPollSubscription("a-poll"), 108]]) {
      const ended = new Promise((resolve) => made.on("unsubscribed", resolve));
      made.subscribe();
      assert.equal((await ended).code, code);
    }
    for (const data of [{ n: 1 }, { n: 2 }]) await room.publish(data);
    await room.journal.next("publication", 2);
    assert.deepEqual(room.journal.data, [{ n: 1 }, { n: 2 }]);
    assert.equal(ann.journal.of("connecting").length, 1);
  });

  test("of several transports the one that is there is taken", async (t) => {
    const server = await startServer(t, { database });
    const elsewhere = [["http_stream", "http_stream"], ["sse", "sse"]].map(([transport, path]) => (
      { transport, endpoint: `${server.pageUrl}connection/${path}` }
    ));
    const ways = [...elsewhere, { transport: "websocket", endpoint: server.url }];
    const ann = await connect(t, Centrifuge, ways, { user: "ann", fetch, readableStream: ReadableStream });
    assert.equal(ann.journal.of("connected")[0].transport, "websocket");
  });

  test("what is not there has the code the protocol gives it", async (t) => {
    const server = await startServer(t, { database, config: "[client]\nchannels_max = 2" });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    assert.equal(await codeOf(ann.rpc("contacts.noSuchMethod", {})), 104);
    assert.equal(await codeOf(ann.rpc("no.such.method", {})), 108);
    assert.equal(await codeOf(ann.publish("nowhere:room", {})), 102);
    assert.equal(await codeOf(ann.history("nowhere:room", { limit: 1 })), 102);
    assert.equal(await codeOf(ann.presence("nowhere:room")), 102);
    const refused = async (channel) => {
      const tried = subscription(ann, channel);
      tried.subscribe();
      return (await tried.journal.next("unsubscribed")).code;
    };
    assert.equal(await refused("nowhere:room"), 102);
    assert.equal(await refused("blank space"), 107);
    await subscribe(ann, "one");
    await subscribe(ann, "two");
    assert.equal(await refused("three"), 106);
    assert.equal(ann.state, "connected");
  });

  test("a namespace that keeps nothing passes messages on without positions", async (t) => {
    const server = await startServer(t, { database, config: "[namespace.typing]\npersist = false" });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const [anns, bobs] = await Promise.all([ann, bob].map((one) => subscribe(one, "typing:lobby")));
    const [{ recoverable, positioned }] = anns.journal.of("subscribed");
    assert.deepEqual([recoverable, positioned], [false, false]);
    await anns.publish({ typing: true });
    const { data, offset, info } = await bobs.journal.next("publication");
    assert.deepEqual([data, offset || undefined, info.user], [{ typing: true }, undefined, "ann"]);
    assert.equal(await codeOf(bobs.history({ limit: 1 })), 108);
  });

  test("what a backend publishes by HTTP reaches subscribers, and it can remove them", async (t) => {
    const server = await startServer(t, { database, config: '[api]\nkey = "the key of the backend"' });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    const call = (method, params) => server.api(method, params, "the key of the backend");

    const { result } = await call("publish", { channel: "lobby", data: { from: "backend" }, tags: { kind: "note" } });
    assert.equal(result.offset, 1);
    const publication = await lobby.journal.next("publication");
    assert.deepEqual([publication.data, publication.tags, publication.info], [{ from: "backend" }, { kind: "note" }, undefined]);

    assert.deepEqual(await call("unsubscribe", { user: "ann", channel: "lobby" }), { result: {} });
    assert.equal((await lobby.journal.next("unsubscribed")).code, 2000);
    assert.deepEqual(await call("disconnect", { user: "ann" }), { result: {} });
    const { code, reason } = await ann.journal.next("disconnected");
    assert.deepEqual([code, reason], [3503, "force disconnect"]);
  });

  test("an idle client answers pings and stays", async (t) => {
    const server = await startServer(t, { database, config: '[client]\nping_interval = "1s"\npong_timeout = "500ms"' });
    let opened = 0;
    let pings;
    class Watched extends BrowserSocket {
      constructor(...options) {
        super(...options);
        opened++;
        pings = new Journal(this, []);
        this.on("message", (data, isBinary) => {
          // In Protobuf a ping is a message without a byte; a frame that begins with one holds nothing else here.
          if (isBinary) return new Uint8Array(data)[0] === 0 && pings.note("ping");
          for (const line of String(data).split("\n")) if (line === "{}") pings.note("ping");
        });
      }
    }
    const ann = await connect(t, Centrifuge, server.url, { user: "ann", websocket: Watched });
    const lobby = await subscribe(ann, "lobby");
    // The fourth is not sent to a client whose answer to the third was missing.
    await pings.next("ping", 4);
    await lobby.publish("still here");
    assert.deepEqual([opened, ann.state], [1, "connected"]);
  });

  test("a client that says goodbye is answered", async (t) => {
    const server = await startServer(t, { database });
    const socket = new WebSocket(server.url);
    t.after(() => socket.terminate());
    socket.on("open", () => socket.send('{"id":1,"connect":{}}'));
    socket.on("message", () => socket.close(1000));
    // Without an answer the code would be 1006.
    const closed = new Promise((resolve) => socket.on("close", resolve));
    assert.equal(await within(closed, "the answer"), 1000);
  });

  test("a client that answers no ping is told so and let go", async (t) => {
    const server = await startServer(t, { database, config: '[client]\nping_interval = "1s"\npong_timeout = "500ms"' });
    const socket = new WebSocket(server.url);
    t.after(() => socket.terminate());
    socket.on("open", () => socket.send('{"id":1,"connect":{}}'));
    const closed = new Promise((resolve) => socket.on("close", (code, reason) => resolve([code, String(reason)])));
    assert.deepEqual(await within(closed, "the close frame"), [3012, "no pong"]);
  });
});
