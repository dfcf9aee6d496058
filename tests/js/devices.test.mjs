// Devices: what is tried, the self-check of WebGPU, and the nodes that it cannot run.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ProviderUnavailable } from "../../runtime/js/dist/errors.js";
import { candidates } from "../../runtime/js/dist/runners/devices.js";
import { compare } from "../../runtime/js/dist/runners/selfCheck.js";
import { wideSplits } from "../../runtime/js/dist/runners/splits.js";
import { shippedBundle } from "./support.mjs";

const platform = { name: "this browser", devices: ["webgpu", "wasm"] };
const dimensions = { noiseDim: 4, sentenceDim: 4, imageHeight: 2, imageWidth: 2, contextLength: 8 };

/** A session that draws a picture, after so many milliseconds. */
function drawing(device, value, milliseconds = 0) {
  return {
    device,
    async run() {
      await new Promise((resolve) => setTimeout(resolve, milliseconds));
      return new Float32Array(12).fill(value);
    },
  };
}

test("auto tries all, best first; a named device is that one or an error", () => {
  assert.deepEqual(candidates(platform, "auto"), ["webgpu", "wasm"]);
  assert.deepEqual(candidates(platform, "wasm"), ["wasm"]);
  assert.throws(() => candidates(platform, "cpu"), ProviderUnavailable);
});

test("WebGPU that draws the same, sooner, is taken", async () => {
  const check = await compare(drawing("webgpu", 0.5), drawing("wasm", 0.5, 60), dimensions, false);
  assert.equal(check.largestDifference, 0);
  assert.ok(check.psnr > 60 && check.milliseconds < check.wasmMilliseconds);
});

test("WebGPU that draws another picture is refused, even if it is named", async () => {
  const wrong = compare(drawing("webgpu", 0.5), drawing("wasm", 0.4), dimensions, true);
  await assert.rejects(
    wrong,
    (error) => error instanceof ProviderUnavailable && error.message.includes("dB"),
  );
});

test("slower WebGPU is refused unless it is named", async () => {
  const slow = [drawing("webgpu", 0.5, 60), drawing("wasm", 0.5), dimensions];
  await assert.rejects(compare(...slow, false), ProviderUnavailable);
  assert.equal((await compare(...slow, true)).largestDifference, 0);
});

/** Encode a protobuf field with a length. */
function field(number, ...parts) {
  const body = Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : part)));
  const length = [];
  for (let rest = body.length; ; rest >>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  return Buffer.concat([Buffer.of(number * 8 + 2, ...length), body]);
}

function node(operator, name, outputs) {
  const parts = Array.from({ length: outputs }, (_, i) => field(2, `${name}/${i}`));
  return field(1, field(1, "x"), ...parts, field(3, name), field(4, operator));
}

test("splits into too many parts are found among other nodes and numbers of all types", () => {
  const numbers = Buffer.from([8, 0xac, 2, 0x11, ...new Array(8).fill(1), 0x1d, 1, 1, 1, 1]); // varint, 64 and 32 bits
  const nodes = [node("Split", "wide", 16), node("Split", "narrow", 9), node("Concat", "other", 12)];
  const model = Buffer.concat([numbers, field(7, ...nodes, field(5, "weights".repeat(99)))]);
  assert.deepEqual(wideSplits(model, 9), ["wide"]);
  assert.deepEqual(wideSplits(model, 8), ["wide", "narrow"]);
  assert.throws(() => wideSplits(Buffer.of(8, 255), 9), RangeError);
});

test("splits of the shipped model", () => {
  const names = wideSplits(readFileSync(join(shippedBundle, "generator.w16a32.onnx")), 9);
  assert.ok(names.length > 0 && names.every((name) => name.startsWith("conditioning/Split")));
});
