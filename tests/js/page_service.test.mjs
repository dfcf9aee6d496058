// The page as the service serves it: drawn by the service, or in the tab by a switch; and the service's small page.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { chunks, largestDifference } from "./png.mjs";
import { noService, Service } from "./service.mjs";
import { chromiumPath, launchChromium } from "./site.mjs";
import { bundleFiles, packageFolder, require, vectors } from "./support.mjs";

const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const skip = (!chromiumPath && "no Chromium was found; CHROMIUM names one") || noService;
const [{ prompt, seed, pixels }] = vectors("pictures").pictures;
const hash = `#${new URLSearchParams({ prompt, seeds: `${seed},8` })}`;
const SIZES = [
  [390, "light"],
  [820, "dark"],
  [1440, "light"],
];

describe("pages of the service in Chromium", { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), "galip-page-"));
  const known = { styles: ["3D style", "flat style", "noto style"], things: ["a fox"] };
  let browser, service, locked, small, smallLocked, context, page, asked;
  let problems = [];

  before(async () => {
    execFileSync(process.execPath, ["tools/build_page.mjs", folder], { cwd: packageFolder });
    const { source } = JSON.parse(Buffer.from(bundleFiles().get("manifest.json")).toString());
    writeFileSync(join(folder, "known.json"), JSON.stringify({ ...known, source: source.sha256 }));
    [browser, service, locked, small, smallLocked] = await Promise.all([
      launchChromium(),
      new Service().open(["--page", folder]),
      new Service().open(["--page", folder], { key: true }),
      new Service().open(),
      new Service().open([], { key: true }),
    ]);
  });
  after(async () => {
    await browser?.close();
    await Promise.all([service, locked, small, smallLocked].map((each) => each?.close()));
    rmSync(folder, { recursive: true });
  });
  afterEach(async () => {
    await context.close();
    assert.deepEqual(problems, []);
  });

  async function visit(address, { isReady = true } = {}) {
    [problems, asked] = [[], []];
    context = await browser.newContext({ reducedMotion: "reduce", acceptDownloads: true });
    context.setDefaultTimeout(30_000);
    page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("request", (request) => {
      const url = request.url();
      if (/^(blob|data):/.test(url)) return;
      asked.push(new URL(url).pathname.slice(1));
      if (new URL(url).origin !== new URL(address).origin) problems.push(url);
    });
    await page.goto(address);
    if (isReady) await drawn(1);
  }

  async function drawn(least) {
    await page.waitForFunction((count) => document.querySelector("#picture").dataset.drawn >= count, least);
  }

  async function captioned(pattern) {
    await page.waitForFunction(
      (text) => new RegExp(text).test(document.querySelector("#caption").textContent),
      pattern,
    );
  }

  async function downloaded(button) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
  }

  /** Let the browser's own reports of answers with an error pass. */
  function expectStatus(...statuses) {
    problems = problems.filter((text) => !statuses.some((status) => text.includes(`status of ${status}`)));
  }

  async function assertAccessible(width, colorScheme) {
    await page.setViewportSize({ width, height: 844 });
    await page.emulateMedia({ colorScheme });
    await page.evaluate(`{${axe}}`);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
    assert.deepEqual(found, []);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${wide} pixels too wide`);
  }

  async function choose(place) {
    await page.check(`[name=place][value=${place}]`, { force: true });
  }

  const message = () => page.locator("#message p").textContent();

  test("the service draws, and the page takes nothing that only the tab needs", async () => {
    await visit(service.address + hash);
    await page.fill("#prompt", `${prompt}, flat style`);
    await captioned("flat style");
    await page.waitForFunction(() => document.querySelectorAll("#recent li").length > 0);
    assert.match(await page.textContent("#how"), /^Server, cpu · fp32 · \d+ ms an answer$/);
    assert.equal(await page.textContent("#tagline"), "Drawn by this server.");
    assert.equal(await page.textContent("#offline"), "");
    const forTheTab = asked.filter((path) => /^(bundle|onnxruntime)\/|^(worker|sw)\.js/.test(path));
    assert.deepEqual(forTheTab, []);
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
  });

  test("a saved picture has the prompt and the seed, and its pixels are the model's", async () => {
    await visit(service.address + hash);
    // of one prompt: the styles that this page knows would be mixed in
    const before = Number(await page.getAttribute("#picture", "data-drawn"));
    await page.check("[name=mode][value=corners]", { force: true });
    await page.fill("#corner-0", prompt);
    await page.click("#corner-pad .spot >> nth=0");
    await captioned(`^${prompt}$`);
    await drawn(before + 1);
    const { bytes } = await downloaded("#save-picture");
    const texts = chunks(bytes).filter(([type]) => type === "iTXt");
    const text = (name) =>
      texts.map(([, data]) => data.toString()).find((each) => each.startsWith(`${name}\0`));
    assert.ok(text("prompt").endsWith(prompt));
    assert.ok(text("seed").endsWith(String(seed)));
    assert.match(text("bundle"), /[0-9a-f]{64}$/);
    assert.equal(largestDifference(bytes, Buffer.from(pixels, "hex")), 0);
  });

  test("a strip or a square is one request, whatever the point does in it", async () => {
    await visit(`${service.address}#mode=corners`);
    const interpolations = () => asked.filter((path) => path === "v1/interpolations").length;
    assert.equal(interpolations(), 1);
    const box = await page.locator("#corner-pad").boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    for (const share of [0.4, 0.3, 0.35, 0.6]) {
      await page.mouse.move(box.x + box.width * share, box.y + box.height / 2, { steps: 3 });
    }
    await page.mouse.up();
    await captioned("^38% a red heart");
    assert.equal(interpolations(), 1);
    const { name, bytes } = await downloaded("#save-animation");
    assert.match(name, /-animated\.png$/);
    assert.equal(chunks(bytes).filter(([type]) => type === "fcTL").length, 16);
    assert.equal(interpolations(), 1);
  });

  test("the tab draws the same picture with the service's bundle, and the service again", async () => {
    await visit(service.address + "#seeds=7,8");
    await page.fill("#prompt", "a fox, flat style");
    await captioned("^a fox, flat style$");
    await page.waitForFunction(() => document.querySelectorAll("#recent li").length > 0);
    const ofService = await downloaded("#save-picture");
    await choose("tab");
    await page.waitForFunction(() => document.querySelector("#how").textContent.startsWith("WebAssembly, "));
    assert.equal(await page.textContent("#tagline"), "Drawn while you move, in this tab.");
    assert.ok(asked.includes("bundle/generator.onnx"));
    const ofTab = await downloaded("#save-picture");
    const own = await page.evaluate(async (data) => {
      const file = new Blob([Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0))]);
      const image = await createImageBitmap(file);
      const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
      context.drawImage(image, 0, 0);
      const { data: rgba } = context.getImageData(0, 0, image.width, image.height);
      return [...rgba].filter((_, i) => i % 4 < 3);
    }, ofTab.bytes.toString("base64"));
    assert.ok(largestDifference(ofService.bytes, Buffer.from(own)) <= 1);
    await choose("service");
    await page.waitForFunction(() => document.querySelector("#how").textContent.startsWith("Server, "));
    assert.ok(await page.isChecked("[name=place][value=service]"));
  });

  test("a tab that cannot load the bundle says so, and the service goes on", async () => {
    await visit(service.address);
    await page.route("**/bundle/**", (route) => route.fulfill({ status: 404 }));
    await choose("tab");
    await page.locator("#message").waitFor();
    assert.match(await message(), /^FileRefused: /);
    assert.ok(await page.isChecked("[name=place][value=service]"));
    await page.fill("#prompt", "a fox, noto style");
    await captioned("^a fox, noto style$");
    expectStatus(404);
  });

  test("a busy service and one that is gone are said plainly, and can be tried again", async () => {
    await visit(service.address);
    const error = { message: "the queue is full: 64 pictures wait", type: "rate_limit_error" };
    const answer = { status: 429, headers: { "Retry-After": "3" }, json: { error } };
    await page.route("**/v1/images/**", (route) => route.fulfill(answer));
    await page.fill("#prompt", "a boat, flat style");
    await page.locator("#message").waitFor();
    assert.equal(await message(), "Busy: the queue is full: 64 pictures wait. Try again in 3 s");
    await assertAccessible(390, "dark");
    await page.unroute("**/v1/images/**");
    await page.click("#retry");
    await captioned("^a boat, flat style$");
    await page.locator("#message").waitFor({ state: "hidden" });
    await page.route("**/v1/images/**", (route) => route.abort());
    await page.fill("#prompt", "a car, flat style");
    await page.locator("#message").waitFor();
    assert.equal(await message(), "No answer: the server cannot be reached; is it still running?");
    await page.unroute("**/v1/images/**");
    await page.fill("#seed-0", "-1");
    await page.waitForFunction(() =>
      /^Refused: .*seed/.test(document.querySelector("#message p").textContent),
    );
    expectStatus(429, 400);
    problems = problems.filter((text) => !text.includes("ERR_FAILED"));
  });

  test("a key is asked for, kept in the session alone, and the bundle is not handed out", async () => {
    await visit(locked.address + hash, { isReady: false });
    await page.locator("#message").waitFor();
    assert.equal(await message(), "Not allowed: the server asks for an API key");
    await page.fill("#key", "of-something-else");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() =>
      /does not know this/.test(document.querySelector("#message p").textContent),
    );
    await assertAccessible(390, "light");
    assert.ok(await page.locator("#place").isHidden());
    assert.ok(await page.locator("#own-bundle").isHidden());
    await page.fill("#key", locked.key);
    await page.keyboard.press("Enter");
    await drawn(1);
    assert.ok(await page.locator("#message").isHidden());
    await assertAccessible(1440, "dark");
    await page.reload();
    await drawn(1);
    const kept = await page.evaluate(() => [
      Object.values(sessionStorage),
      localStorage.length,
      document.cookie,
    ]);
    assert.deepEqual(kept, [[locked.key], 0, ""]);
    assert.ok(!asked.some((path) => path.startsWith("bundle/")));
    assert.equal((await fetch(`${locked.address}bundle/manifest.json`)).status, 401);
    expectStatus(401);
  });

  for (const [width, colorScheme] of SIZES) {
    test(`axe finds nothing at ${width} pixels, ${colorScheme}`, async () => {
      await visit(service.address);
      await page.waitForFunction(() => document.querySelectorAll("#recent li").length > 0);
      await assertAccessible(width, colorScheme);
    });

    test(`axe finds nothing on the small page at ${width} pixels, ${colorScheme}`, async () => {
      await visit(small.address, { isReady: false });
      await page.click("#draw");
      await page.waitForFunction(() => document.querySelectorAll("#pictures img").length === 4);
      await assertAccessible(width, colorScheme);
    });
  }

  test("the small page draws pictures and an animation, and says what is wrong", async () => {
    await visit(small.address, { isReady: false });
    await page.fill("#prompt", prompt);
    await page.fill("#seed", "18446744073709551614");
    await page.fill("#count", "2");
    await page.click("#draw");
    const texts = page.locator("#pictures img");
    await page.waitForFunction(() => document.querySelectorAll("#pictures img").length === 2);
    assert.equal(await texts.nth(1).getAttribute("alt"), `${prompt}, seed 18446744073709551615`);
    await page.fill("#seed", String(seed));
    await page.fill("#count", "1");
    await page.click("#draw");
    await page.waitForFunction(() => document.querySelectorAll("#pictures img").length === 1);
    const { name, bytes } = await downloaded("#pictures a");
    assert.ok(name.endsWith(`-${seed}.png`));
    assert.equal(largestDifference(bytes, Buffer.from(pixels, "hex")), 0);
    await page.fill("#to", "a fox");
    await page.click("#draw");
    await page.waitForFunction(() => document.querySelector("#pictures img")?.alt.includes(" to a fox"));
    await page.fill("#prompt", "x".repeat(5000));
    await page.click("#draw");
    await page.locator("#message").waitFor();
    assert.match(await page.textContent("#message"), /4000 characters/);
    assert.ok(await page.isEnabled("#draw"));
    expectStatus(400);
  });

  test("the small page asks for a key where there is one", async () => {
    await visit(smallLocked.address, { isReady: false });
    await page.locator("#key").waitFor();
    assert.equal(await page.textContent("#model"), "");
    await page.click("#draw");
    await page.locator("#message").waitFor();
    assert.equal(await page.textContent("#message"), "The service asks for an API key.");
    await assertAccessible(390, "dark");
    await page.fill("#key", smallLocked.key);
    await page.click("#draw");
    await page.waitForFunction(() => document.querySelectorAll("#pictures img").length === 4);
    await page.waitForFunction(() => document.querySelector("#model").textContent); // comes by itself
    assert.match(await page.textContent("#model"), /^galip-[0-9a-f]{12} · 8×8 pixels · cpu · fp32$/);
    expectStatus(401);
  });
});
