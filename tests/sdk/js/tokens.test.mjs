// Who is let in: connection tokens, subscription tokens, their expiry and refresh, and what a token
// subscribes its bearer to.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { SECRET, client, connect, everywhere, openGate, range, sign, startServer, subscribe, subscription, unixTime } from "./support.mjs";

everywhere(describe, ({ Centrifuge, database }) => {
  const secured = (t, config = "") => startServer(t, { database, config, secured: true });

  /** The code a client with these options is turned away with, for good. */
  const turnedAway = async (t, server, options) => {
    const refused = client(t, Centrifuge, server.url, options);
    refused.connect();
    const { code } = await refused.journal.next("disconnected");
    assert.equal(refused.journal.of("connected").length, 0);
    return code;
  };

  test("a token of the command line names the user and what others see of it", async (t) => {
    const server = await secured(t);
    const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann", "--info", '{"name":"Ann"}') });
    const lobby = await subscribe(ann, "lobby");
    await lobby.publish("hello");
    const { info } = await lobby.journal.next("publication");
    assert.deepEqual([info.user, info.connInfo], ["ann", { name: "Ann" }]);
    const { clients } = await lobby.presence();
    assert.deepEqual(Object.values(clients).map(({ user, connInfo }) => [user, connInfo]), [["ann", { name: "Ann" }]]);
  });

  test("who has no good token is turned away for good, with the code that says why", async (t) => {
    const server = await secured(t);
    assert.equal(await turnedAway(t, server, {}), 3501);
    assert.equal(await turnedAway(t, server, { user: "mallory" }), 3501);
    assert.equal(await turnedAway(t, server, { token: "no token at all" }), 3500);
    assert.equal(await turnedAway(t, server, { token: sign({ sub: "ann" }, `${SECRET}?`) }), 3500);
    assert.equal(await turnedAway(t, server, { token: sign({ sub: "ann", channel: "lobby" }) }), 3500);
    assert.equal(await turnedAway(t, server, { token: sign({ exp: unixTime(60) }) }), 3507);
    const none = sign({ sub: "ann" }).split(".");
    const unsigned = Buffer.from('{"alg":"none"}').toString("base64url");
    assert.equal(await turnedAway(t, server, { token: `${unsigned}.${none[1]}.` }), 3500);
  });

  test("a server may let in who has no token, as nobody", async (t) => {
    const server = await secured(t, "[client]\nallow_anonymous = true");
    const nobody = await connect(t, Centrifuge, server.url, { user: "ann" });
    const lobby = await subscribe(nobody, "lobby");
    await lobby.publish("who am I?");
    assert.equal((await lobby.journal.next("publication")).info.user, "");
    assert.deepEqual(await lobby.presenceStats(), { numClients: 1, numUsers: 1 });
  });

  test("an expired token is replaced by asking the app for one", async (t) => {
    const server = await secured(t);
    let asked = 0;
    const getToken = async () => {
      asked++;
      return sign({ sub: "ann", exp: unixTime(3600) });
    };
    const ann = await connect(t, Centrifuge, server.url, { token: sign({ sub: "ann", exp: unixTime(-10) }), getToken });
    assert.equal(asked, 1);
    assert.equal(ann.state, "connected");
    // Without a way to ask, it is the end.
    await turnedAway(t, server, { token: sign({ sub: "ann", exp: unixTime(-10) }) });
  });

  test("a token is refreshed before it expires, and the connection stays", async (t) => {
    // The third refresh comes when a connection that still had its first expiry would be over.
    const server = await secured(t, '[client]\nexpired_close_delay = "2s"');
    let asked = 0;
    let later;
    const again = new Promise((resolve) => { later = resolve; });
    const getToken = async () => {
      if (++asked === 4) later();
      return sign({ sub: "ann", exp: unixTime(asked < 4 ? 2 : 3600) });
    };
    const ann = await connect(t, Centrifuge, server.url, { getToken });
    const lobby = await subscribe(ann, "lobby");
    await again;
    await lobby.publish("still the same connection");
    await lobby.journal.next("publication");
    assert.deepEqual(ann.journal.of("connecting").length, 1);
    assert.deepEqual(ann.journal.of("error"), []);
  });

  test("a connection whose token is not refreshed is ended when its grace is over", async (t) => {
    const server = await secured(t, '[client]\nexpired_close_delay = "500ms"');
    let asked = 0;
    const getToken = () => {
      asked++;
      if (asked === 1) return Promise.resolve(sign({ sub: "ann", exp: unixTime(2) }));
      if (asked === 2) return Promise.reject(new Error("the backend is away"));
      return Promise.resolve(sign({ sub: "ann", exp: unixTime(3600) }));
    };
    const ann = await connect(t, Centrifuge, server.url, { getToken });
    const { code, reason } = await ann.journal.next("connecting", 2);
    assert.deepEqual([code, reason], [3005, "connection expired"]);
    await ann.journal.next("connected", 2);
    assert.ok(asked >= 3);
  });

  test("a room that needs a token is entered with one for it, and only so", async (t) => {
    const server = await secured(t, "[namespace.board]\ntoken_required = true");
    const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann") });
    for (const channel of ["$private", "board:one"]) {
      const refused = subscription(ann, channel);
      refused.subscribe();
      assert.equal((await refused.journal.next("unsubscribed")).code, 103);
      ann.removeSubscription(refused);

      const bad = subscription(ann, channel, { token: sign({ sub: "ann", channel }, `${SECRET}?`) });
      bad.subscribe();
      assert.equal((await bad.journal.next("unsubscribed")).code, 103);
      ann.removeSubscription(bad);

      const token = server.token("ann", "--channel", channel, "--info", '{"role":"chair"}');
      const room = await subscribe(ann, channel, { token });
      await room.publish("inside");
      const { info } = await room.journal.next("publication");
      assert.deepEqual([info.user, info.chanInfo], ["ann", { role: "chair" }]);
    }
    assert.equal(ann.journal.of("connecting").length, 1);
  });

  test("a token for another room or of another user ends the connection", async (t) => {
    const server = await secured(t);
    for (const claims of [{ sub: "ann", channel: "$other" }, { sub: "bob", channel: "$private" }]) {
      const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann") });
      subscription(ann, "$private", { token: sign(claims) }).subscribe();
      assert.equal((await ann.journal.next("disconnected")).code, 3500);
    }
  });

  test("an expired subscription token is replaced, and refreshed before it expires again", async (t) => {
    const server = await secured(t, '[client]\nexpired_close_delay = "2s"');
    const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann") });
    let asked = 0;
    let later;
    const refreshed = new Promise((resolve) => { later = resolve; });
    const claim = (seconds) => sign({ sub: "ann", channel: "$private", exp: unixTime(seconds) });
    const getToken = async () => {
      if (++asked === 4) later();
      return claim(asked < 4 ? 2 : 3600);
    };
    const room = await subscribe(ann, "$private", { token: claim(-10), getToken });
    await refreshed;
    await room.publish("still inside");
    await room.journal.next("publication");
    assert.deepEqual(room.journal.of("subscribed").length, 1);
    assert.deepEqual(room.journal.of("unsubscribed"), []);
  });

  test("a subscription whose token is not refreshed is ended, and comes back with a new one", async (t) => {
    const server = await secured(t, '[client]\nexpired_close_delay = "500ms"');
    const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann") });
    let asked = 0;
    const getToken = () => {
      if (++asked === 2) return Promise.reject(new Error("the backend is away"));
      return Promise.resolve(sign({ sub: "ann", channel: "$private", exp: unixTime(asked === 1 ? 2 : 3600) }));
    };
    const room = await subscribe(ann, "$private", { getToken });
    await room.journal.next("subscribed", 2);
    const { code, reason } = room.journal.of("subscribing")[1];
    assert.deepEqual([code, reason], [2501, "subscription expired"]);
    assert.equal(ann.journal.of("connecting").length, 1);
  });

  test("a token subscribes its bearer to rooms, which recover like others", async (t) => {
    const server = await secured(t, "[namespace.news]\nsubscribe = \"nobody\"");
    const gate = await openGate(t, server);
    const token = server.token("ann", "--channels", "lobby,news:today");
    const ann = await connect(t, Centrifuge, gate.url, { token });
    await ann.journal.next("subscribed", 2);
    assert.deepEqual(ann.journal.of("subscribed").map(({ channel }) => channel).sort(), ["lobby", "news:today"]);

    const bob = await connect(t, Centrifuge, server.url, { token: server.token("bob") });
    const lobby = await subscribe(bob, "lobby");
    await lobby.publish({ n: 1 });
    await ann.journal.next("publication");
    gate.shut();
    await ann.journal.next("connecting", 2);
    for (const n of range(2, 10)) await lobby.publish({ n });
    await server.kill();
    await server.start();
    gate.open();
    await ann.journal.next("publication", 10);
    assert.deepEqual(ann.journal.offsets, range(1, 10));
    assert.deepEqual(new Set(ann.journal.of("publication").map(({ channel }) => channel)), new Set(["lobby"]));
    const lobbies = ann.journal.of("subscribed").filter(({ channel }) => channel === "lobby");
    assert.deepEqual([lobbies.length, lobbies[1].recovered], [2, true]);
  });

  test("everybody has a personal channel where the namespace gives one", async (t) => {
    const config = '[api]\nkey = "the key of the backend"\n[namespace.inbox]\npersonal = true';
    const server = await secured(t, config);
    const ann = await connect(t, Centrifuge, server.url, { token: server.token("ann") });
    const { channel } = await ann.journal.next("subscribed");
    assert.equal(channel, "inbox:#ann");
    await server.api("publish", { channel, data: { you: "only" } }, "the key of the backend");
    assert.deepEqual((await ann.journal.next("publication")).data, { you: "only" });

    const bob = await connect(t, Centrifuge, server.url, { token: server.token("bob") });
    const others = subscription(bob, "inbox:#ann");
    others.subscribe();
    assert.equal((await others.journal.next("unsubscribed")).code, 103);
  });
});
