// Loading: from everywhere, verified before anything is parsed, and nothing damaged or foreign.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { FileRefused, load, ProviderUnavailable, UsageError } from "../../runtime/js/dist/node.js";
import {
  asBlobs,
  asZip,
  bundleFiles,
  bundleZip,
  files,
  pixelDifference,
  serving,
  vectors,
} from "./support.mjs";

const { pictures } = vectors("pictures");
const folder = mkdtempSync(join(tmpdir(), "galip-js-"));
after(() => rmSync(folder, { recursive: true }));

const refused = (message) => (error) =>
  error instanceof FileRefused && error.exitCode === 4 && error.message.includes(message);

/** Load, draw the first of the vectors' pictures, and compare it. */
async function draws(place, options) {
  const model = await load(place, options);
  const [{ prompt, seed, pixels }] = pictures;
  const [picture] = await model.generate({ prompts: prompt, seeds: seed });
  assert.ok(pixelDifference(picture, pixels) <= 1);
  await model.dispose();
}

function writeFolder(name, map) {
  for (const [file, bytes] of map) {
    mkdirSync(dirname(join(folder, name, file)), { recursive: true });
    writeFileSync(join(folder, name, file), bytes);
  }
  return join(folder, name);
}

/** Change the manifest's document and its digest, as a careful forger would. */
function restated(change) {
  const map = bundleFiles();
  const document = JSON.parse(Buffer.from(map.get("manifest.json")).toString());
  change(document);
  delete document.digest;
  const text = `${JSON.stringify(document, undefined, 2)}\n`;
  const digest = createHash("sha256").update(text).digest("hex");
  map.set("manifest.json", Buffer.from(text.replace("{\n", `{\n  "digest": "${digest}",\n`)));
  return map;
}

test("a folder, by path and by file address", async () => {
  const path = writeFolder("whole", bundleFiles());
  await draws(path);
  await draws(pathToFileURL(path));
});

test("a ZIP archive: path, bytes, Blob, and with the files at its top", async () => {
  const path = join(folder, "bundle.zip");
  writeFileSync(path, bundleZip);
  await draws(path);
  await draws(new Uint8Array(bundleZip));
  await draws(new Blob([bundleZip]));
  await draws(asZip(bundleFiles()));
});

test("files that the user chose", async () => {
  await draws(asBlobs(bundleFiles()));
  await draws([...bundleFiles()].map(([name, bytes]) => new File([bytes], name)));
});

test("an address, with or without a slash at its end, and of an archive", async () => {
  const site = new Map([...bundleFiles()].map(([name, bytes]) => [`a/b/${name}`, bytes]));
  site.set("a/bundle.zip", bundleZip);
  await serving(files(site), async (address) => {
    await draws(`${address}a/b`);
    await draws(new URL("a/b/", address));
    await draws(`${address}a/bundle.zip`);
  });
});

test("progress rises to the bytes of all that is read", async () => {
  const seen = [];
  await serving(files(bundleFiles()), (address) =>
    draws(address, { onProgress: (progress) => seen.push(progress) }),
  );
  const { loaded, total } = seen.at(-1);
  assert.equal(loaded, total);
  const map = bundleFiles();
  const read = ["generator.onnx", "text_encoder.onnx", "vocabulary.gz", "parity.json"];
  assert.equal(
    total,
    read.reduce((sum, name) => sum + map.get(name).length, 0),
  );
  seen.reduce((before, { loaded: now }) => (assert.ok(now >= before), now), 0);
});

test("two loads at once", async () => {
  await Promise.all([
    draws(bundleZip),
    draws(bundleZip),
    draws(bundleZip, { device: "wasm" }),
    draws(bundleZip, { device: "wasm" }),
  ]);
});

test("a changed byte in any file is refused", async () => {
  for (const name of bundleFiles().keys()) {
    const map = bundleFiles();
    const bytes = Buffer.from(map.get(name));
    bytes[bytes.length >> 1] ^= 1;
    map.set(name, bytes);
    if (name === "generator.w16a32.onnx")
      await draws(asBlobs(map)); // nobody reads it
    else await assert.rejects(load(asBlobs(map)), FileRefused, name);
  }
});

test("any changed byte of the manifest is refused", async () => {
  const text = bundleFiles().get("manifest.json");
  for (let i = 0; i < text.length; i += 7) {
    const map = bundleFiles();
    const bytes = Buffer.from(text);
    bytes[i] ^= 1 << (i % 8);
    map.set("manifest.json", bytes);
    await assert.rejects(load(asBlobs(map)), FileRefused, `byte ${i}`);
  }
});

test("a file that is cut, longer or missing is refused, even one that is not read", async () => {
  for (const name of ["generator.onnx", "vocabulary.gz", "generator.w16a32.onnx", "manifest.json"]) {
    const whole = Buffer.from(bundleFiles().get(name));
    for (const bytes of [
      whole.subarray(0, -1),
      Buffer.concat([whole, Buffer.of(10)]),
      whole.subarray(0, 0),
    ]) {
      await assert.rejects(load(asBlobs(bundleFiles().set(name, bytes))), FileRefused, name);
      await assert.rejects(load(asZip(bundleFiles().set(name, bytes))), FileRefused, name);
    }
    const map = bundleFiles();
    map.delete(name);
    await assert.rejects(load(asBlobs(map)), refused(name));
    await assert.rejects(load(writeFolder(`without ${name}`, map)), refused(name));
  }
});

test("a wrong hash is noticed before onnxruntime sees the graph", async () => {
  const map = bundleFiles();
  map.set("generator.onnx", new Uint8Array(map.get("generator.onnx").length));
  await assert.rejects(load(asBlobs(map)), refused("sha256"));
});

test("a graph that is none, or another one, is refused though its hash is right", async () => {
  for (const name of ["garbage", "text_encoder.onnx"]) {
    const bytes = name === "garbage" ? new Uint8Array(100).fill(7) : bundleFiles().get(name);
    const map = restated(({ files }) => {
      files["generator.onnx"] = {
        sha256: createHash("sha256").update(bytes).digest("hex"),
        size: bytes.length,
      };
    });
    map.set("generator.onnx", bytes);
    for (const device of ["cpu", "wasm"])
      await assert.rejects(load(asBlobs(map), { device }), refused("generator.onnx"));
  }
});

test("a vocabulary that is no gzip, is cut, lies about its size or is no text is refused", async () => {
  const bomb = gzipSync(Buffer.alloc(100 * 2 ** 20));
  const liar = Buffer.from(bomb);
  liar.writeUInt32LE(10, liar.length - 4);
  const texts = [
    Buffer.from("i n"),
    gzipSync("i n\n").subarray(0, -9),
    bomb,
    liar,
    gzipSync(Buffer.of(255, 254)),
    Buffer.alloc(0),
  ];
  for (const bytes of texts) {
    const map = restated(({ files }) => {
      files["vocabulary.gz"] = {
        sha256: createHash("sha256").update(bytes).digest("hex"),
        size: bytes.length,
      };
    });
    await assert.rejects(load(asBlobs(map.set("vocabulary.gz", bytes))), refused("vocabulary"));
  }
});

test("a bundle of a newer format is refused by its version", async () => {
  await assert.rejects(
    load(asBlobs(restated((document) => (document.format_version = 2)))),
    refused("version is 2"),
  );
});

test("a later revision with more fields is read", async () => {
  await draws(asBlobs(restated((document) => Object.assign(document, { format_revision: 9, news: [1] }))));
});

const FORGERIES = {
  "another format": (d) => (d.format = "zip"),
  "a version that is no number": (d) => (d.format_version = "1"),
  "a size that is no number": (d) => (d.files["parity.json"].size = "3"),
  "a hash in capitals": (d) => (d.files["parity.json"].sha256 = "A".repeat(64)),
  "a name that leaves the folder": (d) => (d.files["../x"] = d.files["parity.json"]),
  "a hidden name": (d) => (d.files[".x"] = d.files["parity.json"]),
  "a graph that is not listed": (d) => (d.graphs.generator.fp32.file = "other.onnx"),
  "a graph too many": (d) => (d.graphs.critic = d.graphs.generator),
  "a graph without a precision": (d) => (d.graphs.generator = {}),
  "another input": (d) => (d.graphs.generator.fp32.inputs[0].name = "z"),
  "another shape": (d) => (d.dimensions.image_width = 9),
  "no dimensions": (d) => delete d.dimensions,
  "a dimension of 0": (d) => (d.dimensions.noise_dim = 0),
  "a context too short for a caption": (d) => (d.dimensions.context_length = d.tokenizer.context_length = 2),
  "contexts that differ": (d) => (d.tokenizer.context_length = 25),
  "another noise": (d) => (d.noise.rounding = "none"),
  "more merges than there are": (d) => (d.tokenizer.merges += 1),
  "a list instead of an object": (d) => (d.files = []),
};
for (const [name, forge] of Object.entries(FORGERIES)) {
  test(`a manifest with ${name} is refused`, () =>
    assert.rejects(load(asBlobs(restated(forge))), FileRefused));
}

test("a manifest that is no JSON, too large or nested too deeply is refused", async () => {
  for (const text of ["", "{", "[]", "null", "[".repeat(500_000), " ".repeat(2 ** 20 + 1), "\xff"]) {
    await assert.rejects(
      load(asBlobs(bundleFiles().set("manifest.json", Buffer.from(text, "latin1")))),
      FileRefused,
    );
  }
});

test("what is no bundle at all is refused", async () => {
  await assert.rejects(load(join(folder, "nowhere")), refused("nowhere"));
  await assert.rejects(load(new Uint8Array(100)), refused("ZIP"));
  await assert.rejects(load(bundleZip.subarray(0, bundleZip.length / 2)), refused("ZIP"));
  await assert.rejects(load(asZip(new Map([["a.txt", new Uint8Array(3)]]))), refused("manifest.json"));
  await assert.rejects(load([]), refused("manifest.json"));
  for (const value of [undefined, null, 7, {}]) await assert.rejects(load(value), UsageError);
});

test("an archive that claims to hold more than the manifest lists is refused before it is unpacked", async () => {
  const map = bundleFiles().set("vocabulary.gz", new Uint8Array(50 * 2 ** 20));
  await assert.rejects(load(asZip(map)), refused("size"));
});

test("a link out of the folder is refused", async () => {
  const path = writeFolder("linked", bundleFiles());
  rmSync(join(path, "parity.json"));
  symlinkSync(join(writeFolder("target", bundleFiles()), "parity.json"), join(path, "parity.json"));
  await assert.rejects(load(path), refused("link"));
});

test("a server that has not all, stops in the middle, sends too much or is gone", async () => {
  const whole = bundleFiles();
  const without = bundleFiles();
  without.delete("generator.onnx");
  await serving(files(without), (address) => assert.rejects(load(address), refused("404")));
  const cut = (name, response) => {
    if (name !== "generator.onnx") return files(whole)(name, response);
    response.writeHead(200, { "content-length": whole.get(name).length });
    response.write(whole.get(name).subarray(0, 500));
    setTimeout(() => response.destroy(), 20);
  };
  await serving(cut, (address) => assert.rejects(load(address), refused("generator.onnx")));
  const longer = bundleFiles().set(
    "generator.onnx",
    Buffer.concat([whole.get("generator.onnx"), Buffer.alloc(99)]),
  );
  await serving(files(longer), (address) => assert.rejects(load(address), refused("generator.onnx")));
  const gone = await serving(files(whole), async (address) => address);
  await assert.rejects(load(gone), refused("Check the connection"));
});

test("a server that lets .gz arrive unpacked is told from a damaged file", async () => {
  const answer = (name, response) => {
    if (name.endsWith(".gz")) response.setHeader("content-encoding", "gzip");
    files(bundleFiles().set("vocabulary.gz", gzipSync("i n\n".repeat(500))))(name, response);
  };
  await serving(answer, (address) => assert.rejects(load(address), refused("Content-Encoding")));
});

test("loading stops when its signal says so", async () => {
  await assert.rejects(load(bundleZip, { signal: AbortSignal.abort() }), { name: "AbortError" });
  const stop = new AbortController();
  const slow = (name, response) =>
    name === "manifest.json" ? files(bundleFiles())(name, response) : stop.abort(new Error("enough"));
  await serving(slow, (address) =>
    assert.rejects(load(address, { signal: stop.signal }), { message: "enough" }),
  );
});

test("devices, precisions and threads that are not there", async () => {
  await assert.rejects(load(bundleZip, { device: "webgpu" }), ProviderUnavailable);
  await assert.rejects(load(bundleZip, { device: "cuda" }), UsageError);
  await assert.rejects(load(bundleZip, { device: "toString" }), UsageError);
  await assert.rejects(load(bundleZip, { precision: "int8" }), UsageError);
  await assert.rejects(load(bundleZip, { threads: 0 }), UsageError);
  const only = restated(({ graphs: { generator } }) => {
    generator.int8 = generator.fp32;
    delete generator.fp32;
    delete generator.w16a32;
  });
  await assert.rejects(
    load(asBlobs(only)),
    (error) => error instanceof UsageError && error.message.includes("int8"),
  );
});

test("info says what was asked for and what runs", async () => {
  const model = await load(bundleZip, { device: "auto", precision: "w16a32", threads: 1 });
  const info = model.info();
  assert.deepEqual(info.requested, { device: "auto", precision: "w16a32", threads: 1 });
  assert.equal(info.device, "cpu");
  assert.deepEqual(info.precision, { textEncoder: "fp32", generator: "w16a32" });
  assert.deepEqual(info.precisions, ["fp32", "w16a32"]);
  assert.equal(info.threads, 1);
  assert.match(info.digest, /^[0-9a-f]{64}$/);
  assert.deepEqual(JSON.parse(JSON.stringify(info)).dimensions, model.dimensions);
  await model.dispose();
});
