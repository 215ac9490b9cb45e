// Clients that were cut off, and servers that died: nothing is missing afterwards, nothing comes twice.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { client, connect, everywhere, openGate, range, startServer, subscribe, subscription } from "./support.mjs";

everywhere(describe, ({ Centrifuge, database }) => {
  test("a client that was away gets what it missed, once, and then what comes", async (t) => {
    const server = await startServer(t, { database });
    const gate = await openGate(t, server);
    const away = await connect(t, Centrifuge, gate.url, { user: "away" });
    const missing = await subscribe(away, "lobby");
    const here = await connect(t, Centrifuge, server.url, { user: "here" });
    const lobby = await subscribe(here, "lobby");
    await lobby.publish({ n: 1 });
    await missing.journal.next("publication");

    gate.shut();
    await missing.journal.next("subscribing", 2);
    for (const n of range(2, 30)) await lobby.publish({ n });
    gate.open();
    const { wasRecovering, recovered } = await missing.journal.next("subscribed", 2);
    assert.deepEqual([wasRecovering, recovered], [true, true]);
    await lobby.publish({ n: 31 });
    await missing.journal.next("publication", 31);
    assert.deepEqual(missing.journal.offsets, range(1, 31));
    assert.deepEqual(missing.journal.data.map(({ n }) => n), range(1, 31));
  });

  test("what was missed may be thousands of messages", async (t) => {
    const server = await startServer(t, { database });
    const gate = await openGate(t, server);
    const away = await connect(t, Centrifuge, gate.url, { user: "away" });
    const missing = await subscribe(away, "lobby");
    const here = await connect(t, Centrifuge, server.url, { user: "here" });
    const lobby = await subscribe(here, "lobby");
    gate.shut();
    await missing.journal.next("subscribing", 2);
    const filler = "x".repeat(500);
    for (const start of [1, 1001, 2001]) {
      await Promise.all(range(start, start + 999).map((n) => lobby.publish({ n, filler })));
    }
    gate.open();
    await missing.journal.next("publication", 3000);
    assert.deepEqual(missing.journal.offsets, range(1, 3000));
    assert.equal(missing.journal.of("subscribed").at(-1).recovered, true);
  });

  test("a killed server loses nothing that it acknowledged", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const annsLobby = await subscribe(ann, "lobby");
    const bobsLobby = await subscribe(bob, "lobby");

    // Ann speaks without pause while the server is killed twice.
    const acked = [];
    let speaking = true;
    const speech = (async () => {
      for (let n = 1; speaking; n++) {
        await annsLobby.ready().then(() => annsLobby.publish({ n })).then(() => acked.push(n), () => {});
      }
    })();
    for (const death of [1, 2]) {
      const enough = bobsLobby.journal.data.length + 50;
      await bobsLobby.journal.next("publication", enough);
      await server.kill();
      await server.start();
      await bobsLobby.journal.next("subscribed", death + 1);
    }
    speaking = false;
    await speech;
    await annsLobby.ready();
    await annsLobby.publish("the end");

    for (const { journal } of [annsLobby, bobsLobby]) {
      await journal.until("the last word", (seen) => seen.data.includes("the end"));
      const offsets = journal.offsets;
      assert.deepEqual(offsets, range(1, offsets.length), "no gap, no repeat");
      assert.ok(journal.of("subscribed").slice(1).every(({ recovered }) => recovered));
      const heard = new Set(journal.data.map(({ n }) => n));
      assert.deepEqual(acked.filter((n) => !heard.has(n)), [], "acknowledged, but never heard");
    }
    const { publications } = await bobsLobby.history({ limit: -1 });
    assert.deepEqual(publications.map(({ data }) => data), bobsLobby.journal.data);
  });

  test("a server that stops in good order lets everybody come back", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    await lobby.publish("before");
    assert.equal(await server.stop(), 0);
    const { code, reason } = await ann.journal.next("connecting", 2);
    assert.deepEqual([code, reason], [3001, "shutdown"]);
    await server.start();
    await lobby.journal.next("subscribed", 2);
    await lobby.publish("after");
    await lobby.journal.next("publication", 2);
    assert.deepEqual(lobby.journal.data, ["before", "after"]);
  });

  test("a subscription may start where the app left off", async (t) => {
    const server = await startServer(t, { database });
    const ann = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(ann, "lobby");
    for (const n of range(1, 5)) await lobby.publish({ n });
    const { epoch } = await lobby.history({ limit: 0 });
    const bob = await connect(t, Centrifuge, server.url, { user: "bob" });
    const since = await subscribe(bob, "lobby", { since: { offset: 3, epoch } });
    await since.journal.next("publication", 2);
    assert.deepEqual(since.journal.offsets, [4, 5]);
    const cara = await connect(t, Centrifuge, server.url, { user: "cara" });
    const all = await subscribe(cara, "lobby", { since: { offset: 0, epoch: "" } });
    await all.journal.next("publication", 5);
    assert.deepEqual(all.journal.offsets, range(1, 5));
  });

  test("a position that is no longer kept is not recovered, and said so", async (t) => {
    const server = await startServer(t, { database, config: "[namespace.short]\nhistory_size = 2" });
    const gate = await openGate(t, server);
    const away = await connect(t, Centrifuge, gate.url, { user: "away" });
    const missing = await subscribe(away, "short:room");
    const here = await connect(t, Centrifuge, server.url, { user: "here" });
    const room = await subscribe(here, "short:room");
    await room.publish({ n: 1 });
    await missing.journal.next("publication");
    gate.shut();
    await missing.journal.next("subscribing", 2);
    for (const n of range(2, 6)) await room.publish({ n });
    gate.open();
    const { wasRecovering, recovered, streamPosition } = await missing.journal.next("subscribed", 2);
    assert.deepEqual([wasRecovering, recovered, streamPosition.offset], [true, false, 6]);
    await room.publish({ n: 7 });
    assert.equal((await missing.journal.next("publication", 2)).offset, 7);
    const { publications } = await room.history({ limit: -1 });
    assert.deepEqual(publications.map(({ offset }) => offset), [6, 7]);
  });

  test("an app that loads its state is asked to, when recovery is not possible", async (t) => {
    const server = await startServer(t, { database, config: "[namespace.short]\nhistory_size = 2" });
    const gate = await openGate(t, server);
    const here = await connect(t, Centrifuge, server.url, { user: "here" });
    const room = await subscribe(here, "short:room");
    await room.publish({ n: 1 });
    const away = client(t, Centrifuge, gate.url, { user: "away" });
    let loaded = 0;
    const getState = async () => {
      loaded++;
      const { offset, epoch } = await room.history({ limit: 0 });
      return { offset, epoch };
    };
    const missing = subscription(away, "short:room", { getState });
    missing.subscribe();
    away.connect();
    await missing.journal.next("subscribed");
    assert.equal(loaded, 1);

    gate.shut();
    await missing.journal.next("subscribing", 2);
    for (const n of range(2, 6)) await room.publish({ n });
    gate.open();
    await missing.journal.next("subscribed", 2);
    assert.equal(loaded, 2);
    await room.publish({ n: 7 });
    await missing.journal.until("the newest message", (journal) => journal.offsets.includes(7));
    assert.deepEqual(missing.journal.offsets, [7]);
  });
});
