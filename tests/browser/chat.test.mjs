// The built-in page in a real browser: two people chat, are cut off, come back, page back, sign in.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { DATABASES, DEADLINE_MS, openGate, range, startServer } from "../sdk/js/support.mjs";

const { chromium } = createRequire(new URL("../sdk/js/package.json", import.meta.url))("playwright-core");

const PICTURES = fileURLToPath(new URL("../../target/screenshots/", import.meta.url));

const executablePath = [process.env.ROOMCAST_CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
  .find((path) => path && existsSync(path));

let browser;

before(async () => {
  assert.ok(executablePath, "no Chromium was found; install it, on Debian: apt-get install chromium");
  mkdirSync(PICTURES, { recursive: true });
  browser = await chromium.launch({
    executablePath,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync",
    ],
  });
});

after(() => browser?.close());

/** A browser of its own, at the page of the server; whatever goes wrong in it fails the test. */
async function open(t, url, options) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("dialog", (dialog) => { wrong.push(`a dialog: ${dialog.message()}`); return dialog.dismiss(); });
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith("data:")) wrong.push(`asked ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(wrong, []);
  });
  await page.goto(url);
  return page;
}

async function join(page, nick, room) {
  await page.fill("#nick", nick);
  if (room) await page.fill("#room", room);
  await page.click("#join");
  await inState(page, "connected");
}

async function joined(t, url, nick, options) {
  const page = await open(t, url, options);
  await join(page, nick);
  return page;
}

const inState = (page, state) => page.waitForSelector(`#state[data-state=${state}]`);

async function say(page, text) {
  await page.fill("#message", text);
  await page.press("#message", "Enter");
}

/** Waits until the elements say exactly this; `what` is the property they say it by. */
async function says(page, selector, what, expected) {
  const values = ({ selector, what }) => [...document.querySelectorAll(selector)].map((element) => element[what]);
  const same = ({ selector, what, expected }) =>
    JSON.stringify([...document.querySelectorAll(selector)].map((element) => element[what])) === JSON.stringify(expected);
  await page.waitForFunction(same, { selector, what, expected }).catch(async (error) => {
    assert.deepEqual(await page.evaluate(values, { selector, what }), expected);
    throw error;
  });
}

/** Waits until the page shows exactly these messages. */
const shows = (page, expected) => says(page, "#messages .message:not(.pending) .text", "textContent", expected);

/** Waits until the page lists exactly these people. */
const lists = (page, expected) => says(page, "#people .name", "textContent", expected);

for (const database of DATABASES) {
  describe(`the built-in page on ${database}`, () => {
    test("two people chat and see each other come and go", async (t) => {
      const server = await startServer(t, { database });
      const ann = await joined(t, server.pageUrl, "Ann");
      await lists(ann, ["Ann"]);
      const bob = await joined(t, server.pageUrl, "Bob");
      await lists(ann, ["Ann", "Bob"]);
      await lists(bob, ["Ann", "Bob"]);

      await say(ann, "Hello Bob! Did the deploy go through?");
      await shows(bob, ["Hello Bob! Did the deploy go through?"]);
      await say(bob, "It did, ten minutes ago.");
      await say(bob, "All green, nobody noticed a thing!");
      await shows(ann, ["Hello Bob! Did the deploy go through?", "It did, ten minutes ago.", "All green, nobody noticed a thing!"]);
      await say(ann, "Wonderful.\nThen let us call it a day.");
      const all = ["Hello Bob! Did the deploy go through?", "It did, ten minutes ago.", "All green, nobody noticed a thing!", "Wonderful.\nThen let us call it a day."];
      for (const page of [ann, bob]) await shows(page, all);
      assert.deepEqual(await ann.locator(".message.own .text").allTextContents(), [all[0], all[3]]);
      assert.deepEqual(await bob.locator(".message.own .text").allTextContents(), [all[1], all[2]]);
      assert.equal(await ann.locator(".message.pending").count(), 0);
      await ann.screenshot({ path: `${PICTURES}chat-${database}.png` });

      await bob.close();
      await lists(ann, ["Ann"]);
      // Who comes later reads what was said, and the page remembers who one is.
      await ann.reload();
      await inState(ann, "connected");
      await shows(ann, all);
      assert.equal(await ann.locator(".message.own").count(), 2);
    });

    test("a script in a message, a name or a room is text", async (t) => {
      const server = await startServer(t, { database });
      const evil = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
      const ann = await joined(t, server.pageUrl, "Ann");
      const eve = await joined(t, server.pageUrl, '<b onclick="alert(3)">Eve</b>');
      await say(eve, evil);
      await shows(ann, [evil]);
      await server.api("publish", { channel: "lobby", data: { html: evil } });
      await shows(ann, [evil, JSON.stringify({ html: evil })]);
      await lists(ann, ['<b onclick="alert(3)">Eve</b>', "Ann"]);
      assert.equal(await ann.locator("#messages img, #messages script, #messages b, #people b").count(), 0);
    });

    test("a page that was cut off comes back by itself and shows what it missed", async (t) => {
      const server = await startServer(t, { database });
      const gate = await openGate(t, server);
      const ann = await joined(t, gate.pageUrl, "Ann");
      const bob = await joined(t, server.pageUrl, "Bob");
      await say(bob, "one");
      await shows(ann, ["one"]);

      gate.shut();
      await inState(ann, "waiting");
      await ann.screenshot({ path: `${PICTURES}away-${database}.png` });
      const missed = range(1, 80).map((n) => `missed ${n}`);
      for (const text of missed) await server.api("publish", { channel: "lobby", data: { text } });
      // Said while away: it leaves when the connection is back.
      await say(ann, "I was away");
      gate.open();
      await inState(ann, "connected");
      await shows(ann, ["one", ...missed, "I was away"]);
      await shows(bob, ["one", ...missed, "I was away"]);
      await lists(ann, ["Ann", "Bob"]);
    });

    test("pages outlive a server that is killed", async (t) => {
      const server = await startServer(t, { database });
      const ann = await joined(t, server.pageUrl, "Ann");
      const bob = await joined(t, server.pageUrl, "Bob");
      await say(ann, "before");
      await shows(bob, ["before"]);
      await server.kill();
      for (const page of [ann, bob]) await page.waitForSelector("#state:not([data-state=connected])");
      await say(bob, "meanwhile");
      await server.start();
      for (const page of [ann, bob]) await inState(page, "connected");
      await say(ann, "after");
      for (const page of [ann, bob]) {
        await page.waitForFunction(() => document.querySelectorAll(".message:not(.pending)").length === 3);
        const texts = await page.locator(".message .text").allTextContents();
        assert.deepEqual([texts[0], ...texts.slice(1).sort()], ["before", "after", "meanwhile"]);
        await lists(page, ["Ann", "Bob"]);
      }
    });

    test("long histories page back", async (t) => {
      const server = await startServer(t, { database });
      const texts = range(1, 120).map((n) => `message ${n}`);
      for (const text of texts) await server.api("publish", { channel: "lobby", data: { text } });
      const ann = await joined(t, server.pageUrl, "Ann");
      await shows(ann, texts.slice(-50));
      await ann.click("#older");
      await shows(ann, texts.slice(-100));
      await ann.click("#older");
      await shows(ann, texts);
      await ann.waitForSelector("#older", { state: "hidden" });

      // Reading old messages is not disturbed by new ones; they are told, and one click away.
      await ann.evaluate(() => { document.querySelector("#scroll").scrollTop = 0; });
      await server.api("publish", { channel: "lobby", data: { text: "news" } });
      await ann.waitForSelector("#newest");
      assert.equal(await ann.evaluate(() => document.querySelector("#scroll").scrollTop), 0);
      await ann.click("#newest");
      await ann.waitForSelector("#newest", { state: "hidden" });
      await shows(ann, [...texts, "news"]);
    });

    test("the address names the room, and rooms are apart", async (t) => {
      const server = await startServer(t, { database });
      const ann = await open(t, `${server.pageUrl}#garden`);
      assert.equal(await ann.inputValue("#room"), "garden");
      await join(ann, "Ann");
      await say(ann, "in the garden");
      await shows(ann, ["in the garden"]);
      await join(ann, "Ann", "house");
      await shows(ann, []);
      assert.equal(new URL(ann.url()).hash, "#house");
      await server.api("publish", { channel: "garden", data: { text: "nobody is here" } });
      await say(ann, "in the house");
      await shows(ann, ["in the house"]);
      await ann.evaluate(() => { location.hash = "#garden"; });
      await shows(ann, ["in the garden", "nobody is here"]);
      await ann.fill("#room", "nowhere:room");
      await ann.press("#room", "Enter");
      await inState(ann, "refused");
      assert.match(await ann.textContent("#notice-text"), /no room “nowhere:room”/);
    });

    test("a server with a secret is entered with a token", async (t) => {
      const config = '[client]\nexpired_close_delay = "1s"';
      const server = await startServer(t, { database, config, secured: true });
      const page = await open(t, server.pageUrl);
      await page.fill("#nick", "Ann");
      await page.click("#join");
      await page.waitForSelector("#settings[open]");
      assert.match(await page.textContent("#settings"), /roomcast token --user NAME/);
      await page.screenshot({ path: `${PICTURES}token-${database}.png` });
      await page.fill("#token", "nonsense");
      await page.click("#token-use");
      await page.waitForFunction(() => /does not accept/.test(document.querySelector("#settings-why").textContent));
      await page.fill("#token", server.token("ann", "--channels", "lobby"));
      await page.click("#token-use");
      await inState(page, "connected");
      await lists(page, ["ann"]);
      await say(page, "let in");
      await shows(page, ["let in"]);
      assert.equal(await page.locator(".message.own").count(), 1);
    });

    test("it works on a phone, in the dark", async (t) => {
      const server = await startServer(t, { database });
      const texts = ["Are you on the train?", "Yes, and the tunnel did not lose a single message."];
      const ann = await joined(t, server.pageUrl, "Ann");
      const phone = { viewport: { width: 390, height: 780 }, colorScheme: "dark", hasTouch: true, isMobile: true };
      const bob = await joined(t, server.pageUrl, "Bob", phone);
      await say(ann, texts[0]);
      await shows(bob, [texts[0]]);
      await bob.tap("#message");
      await bob.fill("#message", texts[1]);
      await bob.tap("#send");
      await shows(ann, texts);
      await shows(bob, texts);
      const fits = await bob.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
      assert.ok(fits, "the page is wider than the phone");
      await bob.screenshot({ path: `${PICTURES}phone-${database}.png` });
      await bob.tap("#show-people");
      await bob.waitForSelector("#people", { state: "visible" });
      assert.equal(await bob.textContent("#count"), "2");
    });
  });
}
