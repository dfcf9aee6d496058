// The command: a picture's file, whole or not at all, and the exit codes of the Python commands.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathOf } from "./support.mjs";

const folder = mkdtempSync(join(tmpdir(), "galip-js-"));
after(() => rmSync(folder, { recursive: true }));
const bundle = pathOf("tests/vectors/bundle.zip");
const out = join(folder, "apple.png");

function run(...words) {
  return new Promise((resolve) => {
    execFile(process.execPath, [pathOf("runtime/js/dist/cli.js"), ...words], (error, stdout, stderr) => {
      resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

test("a picture with its prompt and seed inside; the same seed gives the same file", async () => {
  const first = await run(bundle, "a red apple", "-o", out, "--seed", "18446744073709551615", "--json");
  assert.equal(first.code, 0, first.stderr);
  const { seed, device, digest } = JSON.parse(first.stdout);
  assert.deepEqual([seed, device, digest.length], ["18446744073709551615", "cpu", 64]);
  const png = readFileSync(out);
  assert.ok(png.includes("a red apple") && png.includes(seed) && png.includes(digest));
  await run(bundle, "a red apple", "-o", out, "--seed", seed);
  assert.deepEqual(readFileSync(out), png);
  const other = await run(bundle, "a red apple", "-o", out, "--seed", seed, "--truncation", "0.5");
  assert.equal(other.code, 0, other.stderr);
  assert.notDeepEqual(readFileSync(out), png);
  assert.deepEqual(readdirSync(folder), ["apple.png"]);
});

test("on WebAssembly it ends, too, and prints a seed to use again", async () => {
  const { code, stdout } = await run(bundle, "a red apple", "-o", out, "--device", "wasm");
  assert.equal(code, 0);
  assert.match(stdout, /seed \d+, fp32 on wasm/);
});

const FAILURES = {
  "no prompt": [2, bundle, "-o", out],
  "no file to write": [2, bundle, "a"],
  "a file of another kind": [2, bundle, "a", "-o", join(folder, "a.jpg")],
  "a folder that is not there": [2, bundle, "a", "-o", join(folder, "none", "a.png")],
  "a negative seed": [2, bundle, "a", "-o", out, "--seed=-1"],
  "a truncation that is no number": [2, bundle, "a", "-o", out, "--truncation", "x"],
  "an unknown option": [2, bundle, "a", "-o", out, "--sed", "1"],
  "no bundle there": [4, join(folder, "none"), "a", "-o", out],
  "a device of browsers": [5, bundle, "a", "-o", out, "--device", "webgpu"],
};
for (const [name, [code, ...words]] of Object.entries(FAILURES)) {
  test(`${name}: exit code ${code}`, async () => {
    rmSync(out, { force: true });
    const result = await run(...words);
    assert.equal(result.code, code, result.stderr);
    assert.ok(!existsSync(out));
    assert.doesNotMatch(result.stderr, /^ +at /m); // no stack trace
  });
}

test("help and version", async () => {
  assert.match((await run("--help")).stdout, /^Usage: galip-runtime BUNDLE PROMPT/);
  assert.match((await run("--version")).stdout, /^\d+\.\d+\.\d+$/m);
});
