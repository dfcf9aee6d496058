// The examples run: the server here; the page and the React hook are bundled as a browser would get them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageFolder, pathOf, require } from "./support.mjs";

const { build } = require("esbuild");
const bundle = pathOf("tests/vectors/bundle.zip");

test("the server draws, refuses and ends", async () => {
  const server = spawn(process.execPath, ["examples/server.mjs", bundle, "0"], { cwd: packageFolder });
  try {
    const [line] = await once(server.stdout, "data");
    const address = `${line}`.trim();
    const picture = await fetch(`${address}/picture.png?prompt=a+red+apple&seed=7`);
    assert.equal(picture.status, 200);
    assert.equal(picture.headers.get("content-type"), "image/png");
    const bytes = Buffer.from(await picture.arrayBuffer());
    assert.equal(bytes.toString("latin1", 1, 4), "PNG");
    assert.ok(bytes.includes("a red apple"));
    const many = Array.from({ length: 8 }, (_, seed) =>
      fetch(`${address}/picture.png?prompt=a&seed=${seed}`),
    );
    assert.ok((await Promise.all(many)).every(({ status }) => status === 200));
    for (const query of ["", "?prompt=a&seed=-1", "?prompt=a&truncation=x"]) {
      const refused = await fetch(`${address}/picture.png${query}`);
      assert.equal(refused.status, 400, query);
      assert.equal((await refused.json()).error, "UsageError");
    }
    server.kill("SIGTERM");
    assert.deepEqual(await once(server, "exit"), [0, null]);
  } finally {
    server.kill("SIGKILL");
  }
});

test("the page imports a file of the package and passes options that exist", async () => {
  const page = readFileSync(join(packageFolder, "examples", "page.html"), "utf8");
  const file = /from "\.\/galip-runtime\/(.*?)"/.exec(page)[1];
  assert.ok(existsSync(join(packageFolder, "dist", "web", file)));
  const script = /<script type="module">(.*)<\/script>/s.exec(page)[1];
  const stdin = { contents: script.replace("./galip-runtime/", "./dist/web/"), resolveDir: packageFolder };
  await build({ stdin, bundle: true, format: "esm", write: false, logLevel: "error" });
});

test("a bundler finds what the React hook needs", async () => {
  const entryPoints = [join(packageFolder, "examples", "useGalip.ts")];
  const { outputFiles } = await build({
    entryPoints,
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "error",
  });
  assert.ok(outputFiles[0].text.includes("worker.js"));
});
