// The package in a real browser: Chromium, without a window.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { chromiumPath, launchChromium, Site } from "./site.mjs";
import { bundleFiles, bytesOf, packageFolder, pixelDifference, require, vectors } from "./support.mjs";

const { pictures } = vectors("pictures");

describe("in Chromium", { skip: !chromiumPath && "no Chromium was found; CHROMIUM names one" }, () => {
  let site, browser, context, page;
  const problems = [];

  before(async () => {
    [site, browser] = [await new Site().open(), await launchChromium()];
  });
  after(async () => {
    await browser?.close();
    site?.close();
  });

  beforeEach(async () => {
    await context?.close();
    context = await browser.newContext();
    problems.length = 0;
    site.asked.length = 0;
    site.isIsolated = true;
    await open("");
  });

  async function open(path) {
    page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("request", (request) => {
      if (!request.url().startsWith(site.address) && /^https?:/.test(request.url()))
        problems.push(request.url());
    });
    await page.goto(site.address + path);
  }

  /** Run `use(galip, options, argument)` in the page. */
  function inPage(use, argument) {
    const script = `(async (argument) => {
      const galip = await import("./galip-runtime/galip-runtime.js");
      return (${use})(galip, { onnxruntime: "onnxruntime/", device: "wasm" }, argument);
    })(${JSON.stringify(argument) ?? ""})`;
    return page.evaluate(script);
  }

  async function draws(change = {}) {
    const [{ prompt, seed, pixels }] = pictures;
    const drawn = await inPage(
      async ({ load }, options, { prompt, seed, change }) => {
        const progress = [];
        const onProgress = ({ loaded, total }) => progress.push([loaded, total]);
        const model = await load("bundle/", { ...options, onProgress, ...change });
        const [picture] = await model.generate({ prompts: prompt, seeds: seed });
        const info = model.info();
        await model.dispose();
        return { data: [...picture.data], type: picture.constructor.name, info, progress };
      },
      { prompt, seed, change },
    );
    assert.ok(pixelDifference(drawn, pixels) <= 1);
    return drawn;
  }

  test("a picture is Python's, with progress, several threads and nothing from elsewhere", async () => {
    const { type, info, progress } = await draws({ threads: 2 });
    assert.equal(type, "ImageData");
    assert.deepEqual([info.device, info.threads, info.threadsReason], ["wasm", 2, undefined]);
    assert.deepEqual(progress.at(-1)[0], progress.at(-1)[1]);
    assert.deepEqual(problems, []);
  });

  test("without SharedArrayBuffer there is one thread, and info says why", async () => {
    site.isIsolated = false;
    await page.reload();
    const { info } = await draws({ threads: 2 });
    assert.equal(info.threads, 1);
    assert.match(info.threadsReason, /Cross-Origin-Opener-Policy/);
    assert.deepEqual(problems, []);
  });

  test("without a graphics card auto takes WebAssembly and says so; WebGPU by name is an error", async () => {
    const { info } = await draws({ device: "auto" });
    assert.equal(info.device, "wasm");
    assert.ok((await page.evaluate(() => !("gpu" in navigator))) || info.passedOver.length === 1);
    await assert.rejects(draws({ device: "webgpu" }), /ProviderUnavailable/);
  });

  test("verified files are kept: the next load asks for the manifest alone, and without a server for nothing", async () => {
    await draws();
    site.asked.length = 0;
    await draws();
    assert.deepEqual(
      site.asked.filter((path) => path.startsWith("bundle/")),
      ["bundle/manifest.json"],
    );
    await page.route("**/bundle/**", (route) => route.abort());
    await draws();
  });

  test("what is kept and damaged is downloaded again, and a new bundle takes the place of the old one", async () => {
    await draws();
    await page.evaluate(async () => {
      const cache = await caches.open("galip-runtime");
      for (const key of await cache.keys()) {
        if (key.url.includes("generator")) await cache.put(key, new Response("damaged"));
      }
    });
    site.asked.length = 0;
    await draws();
    assert.deepEqual(
      site.asked.filter((path) => path.includes("generator")),
      ["bundle/generator.onnx"],
    );
    const keys = await page.evaluate(async () => (await (await caches.open("galip-runtime")).keys()).length);
    assert.equal(keys, 5);
  });

  test("with cache: false nothing is kept", async () => {
    await draws({ cache: false });
    assert.equal(await page.evaluate(() => caches.has("galip-runtime")), false);
  });

  test("a damaged bundle is refused, and nothing of it is kept", async () => {
    const whole = site.files.get("bundle/generator.onnx");
    const bytes = Buffer.from(whole);
    bytes[100] ^= 1;
    site.files.set("bundle/generator.onnx", bytes);
    try {
      await assert.rejects(draws(), /FileRefused: generator.onnx is not the file/);
      const keys = await page.evaluate(async () =>
        (await (await caches.open("galip-runtime")).keys()).map(({ url }) => url),
      );
      assert.ok(!keys.some((url) => url.includes("generator")));
    } finally {
      site.files.set("bundle/generator.onnx", whole);
    }
    await draws();
  });

  test("files and archives that the user chose", async () => {
    const files = [...bundleFiles()].map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")]);
    const names = await inPage(async ({ load }, options, files) => {
      const list = files.map(
        ([name, text]) => new File([Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))], name),
      );
      const model = await load(list, options);
      await model.dispose();
      const refusal = await load(list.slice(1), options).catch((error) => error);
      return [model.info().bundle, refusal.name];
    }, files);
    assert.deepEqual(names, ["the folder", "FileRefused"]);
  });

  test("errors are of the package's classes, on both sides of the worker", async () => {
    const names = await inPage(async ({ load, GalipError, UsageError, ...others }, options) => {
      const caught = async (call) => {
        const error = await call().catch((reason) => reason);
        return [error.name, error instanceof GalipError, error instanceof (others[error.name] ?? UsageError)];
      };
      const model = await load("bundle/", options);
      const list = [
        await caught(() => load("nowhere/", options)),
        await caught(() => load("bundle/", { ...options, onnxruntime: "nowhere/" })),
        await caught(() => load("bundle/", { ...options, precision: "int8" })),
        await caught(() => model.generate({ prompts: "x".repeat(2 ** 20) })),
        await caught(() => model.generate({ prompts: "a", seeds: -1 })),
        await caught(() =>
          model.decode([[3e38, 3e38, -3e38, 3e38, 3e38]], [[3e38, -3e38, 3e38, 3e38, 3e38, 3e38]]),
        ),
      ];
      await model.dispose();
      return [...list, await caught(() => model.encodeText("a"))];
    });
    const kinds = [
      "FileRefused",
      "ProviderUnavailable",
      "UsageError",
      "UsageError",
      "UsageError",
      "QualityGateFailed",
      "UsageError",
    ];
    assert.deepEqual(
      names,
      kinds.map((kind) => [kind, true, true]),
    );
  });

  test("a load is stopped, two run at once, and of twenty drags few are drawn", async () => {
    const result = await inPage(async ({ load }, options) => {
      const stop = new AbortController();
      const stopped = load("bundle/", { ...options, cache: false, signal: stop.signal }).catch(
        ({ name }) => name,
      );
      stop.abort();
      const models = await Promise.all([load("bundle/", options), load("bundle/", options)]);
      const [[a], [b]] = await Promise.all(models.map((model) => model.generate({ prompts: "a", seeds: 1 })));
      const equal = a.data.every((value, i) => value === b.data[i]);
      let drag = new AbortController();
      const drags = Array.from({ length: 20 }, (_, seeds) => {
        drag.abort();
        drag = new AbortController();
        return models[0].generate({ prompts: "a", seeds, signal: drag.signal }).then(
          () => seeds,
          ({ name }) => name,
        );
      });
      const ends = await Promise.all(drags);
      await Promise.all(models.map((model) => model.dispose()));
      return { stopped: await stopped, equal, ends };
    });
    assert.deepEqual([result.stopped, result.equal], ["AbortError", true]);
    assert.equal(result.ends.at(-1), 19);
    assert.ok(result.ends.filter((end) => end === "AbortError").length >= 18);
  });

  test("a page that is closed in the middle of a load leaves nothing broken", async () => {
    await inPage(({ load }, options) => {
      void load("bundle/", { ...options, onProgress: () => (window.hasBegun = true) });
    });
    await page.waitForFunction(() => window.hasBegun);
    await page.close();
    await open("");
    await draws();
    assert.deepEqual(problems, []);
  });

  test("a lone surrogate is U+FFFD in the worker, too", async () => {
    const equal = await inPage(async ({ load }, options) => {
      const model = await load("bundle/", options);
      const [a, b] = await model.encodeText(["\udc26\ud83d", "\ufffd\ufffd"]);
      await model.dispose();
      return a.join() === b.join();
    });
    assert.ok(equal);
  });

  test("ids of all captions and noise of all seeds are the vectors' here, too", async () => {
    site.files.set("captions.json", gunzipSync(bytesOf("captions.json.gz")));
    site.files.set("noise.json", gunzipSync(bytesOf("noise.json.gz")));
    site.files.set("merges.txt", gunzipSync(bytesOf("merges.txt.gz")));
    const { wrong, farthest } = await page.evaluate(async () => {
      const [{ Tokenizer }, { noise }] = await Promise.all(
        ["text/tokenizer.js", "noise.js"].map((name) => import(`./dist/${name}`)),
      );
      const json = async (name) => (await fetch(name)).json();
      const { captions, context_length: context } = await json("captions.json");
      const tokenizer = new Tokenizer(await (await fetch("merges.txt")).text(), context);
      const wrong = Object.values(captions)
        .flat()
        .filter(([caption, ids]) => tokenizer.encode(caption).join() !== ids.join());
      const bits = (value) => new Int32Array(Float32Array.of(value).buffer)[0];
      let farthest = 0;
      for (const [seed, , hex] of (await json("noise.json")).rows) {
        noise(seed, 8)[0].forEach((value, i) => {
          const expected = parseInt(hex.slice(8 * i, 8 * i + 8), 16) | 0;
          farthest = Math.max(farthest, Math.abs(bits(value) - expected));
        });
      }
      return { wrong, farthest };
    });
    assert.deepEqual(wrong, []);
    assert.ok(farthest <= 1, `${farthest} units in the last place`);
  });

  test("the example page draws and follows its form", async () => {
    site.files.set("page.html", readFileSync(join(packageFolder, "examples", "page.html")));
    await open("page.html");
    await page.waitForFunction(() => document.querySelector("output").value === "wasm");
    const pixels = () => page.evaluate(() => document.querySelector("canvas").toDataURL());
    const before = await pixels();
    await page.fill("[name=seed]", "8");
    await page.waitForFunction((old) => document.querySelector("canvas").toDataURL() !== old, before);
    await page.fill("[name=seed]", "-1");
    await page.waitForFunction(() => document.querySelector("output").value.includes("a seed is"));
    assert.deepEqual(problems, []);
  });

  test("the React hook draws, draws again, and shows an error", async () => {
    const contents = `
      import { createElement, StrictMode, useEffect, useRef, useState } from "react";
      import { createRoot } from "react-dom/client";
      import { useGalip } from "./examples/useGalip.ts";
      function Show() {
        const [[bundle, seed], set] = useState(["bundle/", 1]);
        window.set = set;
        const { picture, error } = useGalip(bundle, "a red apple", seed);
        const canvas = useRef();
        useEffect(() => { if (picture) canvas.current.getContext("2d").putImageData(picture, 0, 0); }, [picture]);
        return [createElement("canvas", { key: 1, ref: canvas, width: 8, height: 8 }), createElement("output", { key: 2 }, error?.name ?? (picture ? "drawn" : ""))];
      }
      createRoot(document.body).render(createElement(StrictMode, null, createElement(Show)));`;
    const stdin = { contents, resolveDir: packageFolder };
    const options = { bundle: true, format: "esm", write: false, logLevel: "error", outdir: packageFolder };
    const { build } = require("esbuild");
    const script = await build({ stdin, ...options, define: { "process.env.NODE_ENV": '"production"' } });
    site.files.set("react.js", script.outputFiles[0].contents);
    // a bundler that knows workers makes these by itself
    const entryPoints = [join(packageFolder, "dist", "worker.js")];
    const worker = await build({ entryPoints, splitting: true, ...options });
    for (const { path, contents } of worker.outputFiles) site.files.set(basename(path), contents);
    site.files.set("react.html", '<!doctype html><body><script type="module" src="react.js"></script>');
    const wasm = "ort-wasm-simd-threaded.wasm";
    site.files.set(wasm, site.packaged(`onnxruntime/${wasm}`));
    await open("react.html");
    const shows = (text) =>
      page.waitForFunction((text) => document.querySelector("output")?.textContent === text, text);
    await shows("drawn");
    const before = await page.evaluate(() => document.querySelector("canvas").toDataURL());
    await page.evaluate(() => window.set(["bundle/", 2]));
    await page.waitForFunction((old) => document.querySelector("canvas").toDataURL() !== old, before);
    assert.deepEqual(problems, []);
    await page.evaluate(() => window.set(["nowhere/", 2]));
    await shows("FileRefused");

    const single = await build({ entryPoints, ...options });
    site.files.set("worker.js", single.outputFiles[0].contents);
    await page.evaluate(() => window.set(["./bundle/", 2]));
    await shows("ProviderUnavailable"); // onnxruntime's threads cannot start
  });
});
