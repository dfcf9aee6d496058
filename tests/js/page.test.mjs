// The page in a real browser, with the stub bundle, as `galip export --web` writes it.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import { serve } from "../../runtime/js/tools/serve.mjs";
import { chunks, largestDifference } from "./png.mjs";
import { chromiumPath, launchChromium } from "./site.mjs";
import { asZip, bundleFiles, packageFolder, require, vectors } from "./support.mjs";

const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const skip = !chromiumPath && "no Chromium was found; CHROMIUM names one";

describe("the page in Chromium", { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), "galip-page-"));
  const files = bundleFiles();
  const manifest = JSON.parse(Buffer.from(files.get("manifest.json")).toString());
  const known = {
    source: manifest.source.sha256,
    styles: ["3D style", "flat style", "noto style"],
    things: ["a fox", "a red apple", "a boat", "an ape"],
  };
  let server, address, browser, context, page;
  let problems = [];

  before(async () => {
    execFileSync(process.execPath, ["tools/build_page.mjs", folder], { cwd: packageFolder });
    mkdirSync(join(folder, "bundle"));
    for (const [name, bytes] of files) writeFileSync(join(folder, "bundle", name), bytes);
    writeFileSync(join(folder, "known.json"), JSON.stringify(known));
    await listen();
    browser = await launchChromium();
  });
  after(async () => {
    await browser?.close();
    stop();
    rmSync(folder, { recursive: true });
  });

  beforeEach(async () => {
    problems = [];
    context = await browser.newContext({ reducedMotion: "reduce", acceptDownloads: true });
    context.setDefaultTimeout(20_000);
    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  });
  afterEach(async () => {
    await context.close();
    assert.deepEqual(problems, []);
  });

  async function listen(options = {}) {
    server = await serve(folder, options);
    address = `http://127.0.0.1:${server.address().port}/`;
  }

  function stop() {
    server.closeAllConnections();
    server.close();
  }

  async function visit(hash = "", { isReady = true } = {}) {
    page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(address) && !/^(blob|data):/.test(url)) problems.push(url);
    });
    await page.goto(address + hash);
    if (isReady) await drawn(1);
    return page;
  }

  /** Wait for so many pictures, and for the newest wish to be drawn. */
  async function drawn(least = 1) {
    await page.waitForFunction((count) => document.querySelector("#picture").dataset.drawn >= count, least);
  }

  async function drawnState(part) {
    await page.waitForFunction((text) => {
      return decodeURIComponent(document.querySelector("#picture").dataset.state ?? "").includes(text);
    }, part);
  }

  function message() {
    return page.locator("#message p").textContent();
  }

  async function downloaded(button) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(button)]);
    return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
  }

  async function assertAccessible() {
    await page.evaluate(`{${axe}}`);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]);
    assert.deepEqual(found, []);
  }

  /** Drop a file or folder as a visitor does. */
  async function drop(path) {
    const devtools = await context.newCDPSession(page);
    for (const type of ["dragEnter", "dragOver", "drop"]) {
      const data = { items: [], files: [path], dragOperationsMask: 1 };
      await devtools.send("Input.dispatchDragEvent", { type, x: 100, y: 100, data });
    }
  }

  test("draws the library's picture, says how, and saves it with prompt and seed", async () => {
    const [{ prompt, seed, pixels }] = vectors("pictures").pictures;
    await visit(`#${new URLSearchParams({ prompt: `${prompt}, flat style`, seeds: `${seed},8` })}`);
    await page.fill("#prompt", prompt);
    assert.match(await page.textContent("#how"), /^WebAssembly, \d threads? · fp32 · \d+ ms a picture$/);
    assert.equal(await page.textContent("#offline"), "Works offline from now on.");
    writeFileSync(join(folder, "known.json"), JSON.stringify({ ...known, source: "of another model" }));
    try {
      await context.close();
      context = await browser.newContext({ acceptDownloads: true });
      await visit(`#${new URLSearchParams({ prompt, seeds: `${seed},8` })}`);
    } finally {
      writeFileSync(join(folder, "known.json"), JSON.stringify(known));
    }
    assert.ok(await page.locator("#style-pad").isHidden());
    const { name, bytes } = await downloaded("#save-picture");
    assert.match(name, /^[a-z0-9-]+\.png$/);
    const png = chunks(bytes);
    const texts = png.filter(([type]) => type === "iTXt").map(([, data]) => data.toString());
    assert.ok(texts.some((text) => text.startsWith("prompt\0") && text.endsWith(prompt)));
    assert.ok(texts.some((text) => text.startsWith("seed\0") && text.endsWith(String(seed))));
    assert.ok(largestDifference(bytes, Buffer.from(pixels, "hex")) <= 1);
  });

  for (const [width, colorScheme] of [
    [390, "light"],
    [820, "dark"],
    [1440, "light"],
  ]) {
    test(`axe finds nothing at ${width} pixels, ${colorScheme}`, async () => {
      await visit("#prompt=a+fox");
      await page.setViewportSize({ width, height: 844 });
      await page.emulateMedia({ colorScheme });
      for (const mode of ["corners", "styles"]) {
        await page.check(`[name=mode][value=${mode}]`, { force: true });
        await page.waitForFunction(() => document.querySelectorAll("#recent li").length > 0);
        await assertAccessible();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${wide} pixels too wide`);
      }
    });
  }

  test("completes things and styles by keyboard, and the style moves the point", async () => {
    await visit();
    await page.fill("#prompt", "f");
    const options = page.locator("#prompt-options [role=option]");
    assert.deepEqual(await options.allTextContents(), ["a fox"]);
    await page.keyboard.press("ArrowDown");
    assert.equal(await page.getAttribute("#prompt", "aria-activedescendant"), "prompt-options-0");
    await page.keyboard.press("Enter");
    assert.equal(await page.inputValue("#prompt"), "a fox");
    await page.fill("#prompt", "a fox, no");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    assert.equal(await page.inputValue("#prompt"), "a fox, noto style");
    await drawnState("prompt=a+fox,+noto+style");
    assert.equal(await page.textContent("#caption"), "a fox, noto style");
    assert.equal(await page.locator(".spot.on").textContent(), "noto");
    await page.focus("#style-pad input >> nth=0");
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.inputValue("#prompt"), "a fox");
    await drawnState("prompt=a+fox&");
    assert.match(await page.textContent("#caption"), /^a fox, \d+% noto \+ /);
    assert.match(await page.getAttribute("#style-pad input >> nth=0", "aria-valuetext"), /noto/);
  });

  test("of twenty fast drags the newest is drawn, and stale ones are dropped", async () => {
    await visit("#mode=corners");
    const before = Number(await page.getAttribute("#picture", "data-drawn"));
    const moves = await page.evaluate(() => {
      const pad = document.querySelector("#corner-pad");
      const box = pad.getBoundingClientRect();
      const at = (type, share) => {
        const [clientX, clientY] = [box.left + share * box.width, box.top + share * box.height];
        pad.dispatchEvent(
          new PointerEvent(type, { clientX, clientY, pointerId: 1, button: 0, bubbles: true }),
        );
      };
      pad.setPointerCapture = () => undefined; // of a pointer that is not there
      at("pointerdown", 0.2);
      for (let i = 1; i <= 20; i++) at("pointermove", 0.2 + 0.03 * i);
      at("pointerup", 0.8);
      at("pointermove", 0.3); // no drag any more
      return 21;
    });
    await drawnState("at=0.941,0.941");
    const count = Number(await page.getAttribute("#picture", "data-drawn")) - before;
    assert.ok(count >= 1 && count < moves, `${count} of ${moves}`);
  });

  test("a real mouse drags the point, and a press on a corner goes there", async () => {
    await visit("#mode=corners");
    const box = await page.locator("#corner-pad").boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.33, box.y + box.height / 2, { steps: 3 });
    await page.mouse.up();
    await drawnState("at=0.25,0.5");
    await page.click("#corner-pad .spot >> nth=2");
    await drawnState("at=1,1");
  });

  test("the link holds the whole state", async () => {
    await visit("#mode=corners");
    await page.fill("#corner-0", "a boat & 100% “more”, flat style");
    await page.fill("#seed-1", "18446744073709551615");
    await page.fill("#walk", "0.25");
    await page.fill("#truncation", "1.5");
    await page.click("#corner-pad .spot >> nth=0");
    await drawnState("at=0,0");
    await page.click("#copy-link");
    await page.waitForFunction(() => document.querySelector("#copy-link").textContent === "Copied");
    const link = await page.evaluate(() => navigator.clipboard.readText());
    const state = await page.getAttribute("#picture", "data-state");
    assert.equal(new URL(link).hash, state);
    const caption = await page.textContent("#caption");
    await visit(new URL(link).hash);
    assert.equal(await page.getAttribute("#picture", "data-state"), state);
    assert.equal(await page.textContent("#caption"), caption);
  });

  test("an address that makes no sense is passed over", async () => {
    await visit("#mode=x&at=1,2,3&seeds=&walk=7&truncation=-1&corner=a");
    assert.equal(
      await page.getAttribute("#picture", "data-state").then((text) => text.includes("walk")),
      false,
    );
  });

  test("recent pictures lead back", async () => {
    await visit("#prompt=a+fox");
    await page.waitForFunction(() => document.querySelectorAll("#recent li").length === 1);
    await page.fill("#prompt", "a boat");
    await page.waitForFunction(() => document.querySelectorAll("#recent li").length === 2);
    await page.click("#recent button >> nth=1");
    await drawnState("prompt=a+fox");
    assert.equal(await page.inputValue("#prompt"), "a fox");
  });

  test("an animation is an animated PNG", async () => {
    await visit("#prompt=a+fox");
    const { name, bytes } = await downloaded("#save-animation");
    assert.match(name, /^a-fox.*-animated\.png$/);
    const types = chunks(bytes).map(([type]) => type);
    const count = chunks(bytes)
      .find(([type]) => type === "acTL")[1]
      .readUInt32BE(0);
    assert.equal(types.filter((type) => type === "fcTL").length, count);
    assert.equal(types.filter((type) => type === "fdAT").length, count - 1);
    const width = await page.evaluate(async (data) => {
      const blob = new Blob([Uint8Array.from(atob(data), (byte) => byte.charCodeAt(0))], {
        type: "image/png",
      });
      return (await createImageBitmap(blob)).width;
    }, bytes.toString("base64"));
    assert.equal(width, manifest.dimensions.image_width);
  });

  test("a bundle of one's own: a ZIP chosen or dropped; a damaged one is refused and the old one stays", async () => {
    await visit("#prompt=a+fox");
    const zip = join(folder, "own.zip");
    writeFileSync(zip, asZip(files));
    const before = Number(await page.getAttribute("#picture", "data-drawn"));
    await page.setInputFiles("#zip", zip);
    await drawn(before + 1);
    assert.ok(await page.locator("#loading").isHidden());
    assert.ok(await page.locator("#message").isHidden());
    const damaged = join(folder, "damaged.zip");
    writeFileSync(damaged, asZip(new Map([...files, ["generator.onnx", Uint8Array.of(1, 2, 3)]])));
    await drop(damaged);
    await page.locator("#message").waitFor();
    assert.match(await message(), /^FileRefused: generator\.onnx/);
    assert.ok(await page.locator("#drop").isHidden());
    await page.fill("#prompt", "a boat");
    await drawnState("prompt=a+boat");
    await page.click("#dismiss");
    assert.ok(await page.locator("#message").isHidden());
    const drawnBefore = Number(await page.getAttribute("#picture", "data-drawn"));
    await drop(join(folder, "bundle"));
    await drawn(drawnBefore + 1);
    assert.ok(await page.locator("#message").isHidden());
  });

  test("a download that is cut short is refused, and can be tried again", async () => {
    const graph = join(folder, "bundle", "generator.onnx");
    writeFileSync(graph, files.get("generator.onnx").subarray(0, 1000));
    try {
      await visit("", { isReady: false });
      await page.locator("#message").waitFor();
      assert.match(await message(), /^FileRefused: generator\.onnx .*size is 1000/);
    } finally {
      writeFileSync(graph, files.get("generator.onnx"));
    }
    await page.click("#retry");
    await drawn(1);
    assert.ok(await page.locator("#message").isHidden());
  });

  test("what cannot be drawn is said, and the next picture comes", async () => {
    await visit("#prompt=a+fox");
    await page.evaluate(() => {
      const field = document.querySelector("#prompt");
      field.value = "x".repeat(2 ** 20);
      field.dispatchEvent(new Event("input"));
    });
    await page.locator("#message").waitFor();
    assert.match(await message(), /^UsageError: .*100,000/);
    await page.fill("#prompt", "");
    await page.fill("#seed-0", "x");
    await page.locator("#message").waitFor();
    await page.click("#prompt");
    await page.locator("#prompt-options").waitFor();
    await assertAccessible();
    await page.fill("#seed-0", "7");
    await page.fill("#prompt", "a boat");
    await page.locator("#message").waitFor({ state: "hidden" });
    await page.fill("#seed-0", "-1");
    await page.locator("#message").waitFor();
    assert.match(await message(), /^UsageError: a seed is a whole number/);
    await page.click("#any-seed-0");
    await page.locator("#message").waitFor({ state: "hidden" });
  });

  test("works without a server after the first load, also when the page was closed in the middle", async () => {
    await visit("", { isReady: false });
    await page.close();
    await visit("#prompt=a+fox");
    stop();
    try {
      await page.reload();
      await page.waitForFunction(() => document.querySelector("#picture").dataset.drawn > 0);
      assert.match(await page.textContent("#how"), /WebAssembly/);
      assert.ok(await page.locator("#style-pad").isVisible());
    } finally {
      await listen();
    }
    // the browser itself reports what it could not fetch: the manifest, and the service worker's newer version
    problems = problems.filter((text) => !/ERR_CONNECTION_REFUSED/.test(text));
  });

  test("the server here answers addresses that are none, and nothing outside its folder", async () => {
    for (const path of ["%", "%00", "nothing", "..%2f..%2f..%2fetc%2fpasswd", "bundle"]) {
      assert.equal((await fetch(address + path)).status, 404, path);
    }
  });

  test("on a host without headers the service worker adds them", async () => {
    stop();
    await listen({ isolate: false });
    await visit("#prompt=a+fox");
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    assert.doesNotMatch(await page.textContent("#how"), /SharedArrayBuffer/);
  });

  test("without SharedArrayBuffer there is one thread, and it says so", async () => {
    stop();
    await listen({ isolate: false });
    await context.addInitScript(() => delete Navigator.prototype.serviceWorker);
    await visit("#prompt=a+fox");
    assert.match(await page.textContent("#how"), /^WebAssembly, 1 thread \(no SharedArrayBuffer here\)/);
    assert.match(await page.getAttribute("#how", "title"), /Cross-Origin-Opener-Policy/);
    assert.equal(await page.textContent("#offline"), "");
  });
});
