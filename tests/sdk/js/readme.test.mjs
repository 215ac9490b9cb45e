// The JavaScript example of the README, run as a reader runs it.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

import { DEADLINE_MS, startServer } from "./support.mjs";

test("the JavaScript example of the README prints what it says", async (t) => {
  const readme = readFileSync(new URL("../../../README.md", import.meta.url), "utf8");
  const example = readme.match(/<!-- test: js -->\n```js\n(.*?)```/s)[1];
  assert.match(example, /127\.0\.0\.1:8000/);
  const server = await startServer(t);
  // Beside node_modules, where the packages of the example are found.
  const file = fileURLToPath(new URL(`readme-example-${process.pid}.mjs`, import.meta.url));
  writeFileSync(file, example.replace("127.0.0.1:8000", `127.0.0.1:${server.port}`));
  t.after(() => rmSync(file));
  const run = spawnSync(process.execPath, [file], { encoding: "utf8", timeout: DEADLINE_MS });
  assert.equal(run.stdout, "1 hello from JavaScript\n", run.stderr);
});
