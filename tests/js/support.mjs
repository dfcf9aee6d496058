// What the tests share: the vectors, the stub bundle, and small servers.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { createRequire } from "node:module";

const root = new URL("../../", import.meta.url);
export const packageFolder = fileURLToPath(new URL("runtime/js/", root));
export const require = createRequire(new URL("runtime/js/package.json", root));
const { unzipSync, zipSync } = require("fflate");

export function pathOf(path) {
  return fileURLToPath(new URL(path, root));
}

export function bytesOf(name) {
  return readFileSync(new URL(`tests/vectors/${name}`, root));
}

export function vectors(name) {
  return JSON.parse(gunzipSync(bytesOf(`${name}.json.gz`)).toString());
}

/** The shipped model's bundle. */
export const shippedBundle =
  process.env.GALIP_BUNDLE || pathOf("runtime/default_bundle/galip_default_bundle/bundle");

export const bundleZip = bytesOf("bundle.zip");

/** Return the stub bundle's files, name → bytes. */
export function bundleFiles() {
  const entries = Object.entries(unzipSync(new Uint8Array(bundleZip)));
  return new Map(entries.map(([path, bytes]) => [path.replace("bundle/", ""), bytes]));
}

/** Return files as something that `load` takes. */
export function asBlobs(files) {
  return new Map([...files].map(([name, bytes]) => [name, new Blob([bytes])]));
}

export function asZip(files) {
  return zipSync(Object.fromEntries(files));
}

/** Return the numbers of a text of float32 bits. */
export function floats(hex) {
  const bytes = Buffer.from(hex, "hex");
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatBE(4 * i));
}

/** Return the largest distance of two rows, in units in the last place. */
export function ulps(a, b) {
  const order = (value) => {
    const bits = new Int32Array(Float32Array.of(value).buffer)[0];
    return bits < 0 ? -(bits & 0x7fffffff) : bits;
  };
  return Math.max(
    ...Array.from(a, (value, i) => Math.abs(order(value) - order(b[i]))),
    a.length === b.length ? 0 : Infinity,
  );
}

/** Return the PSNR in dB of images (3, H, W) clamped to [-1, 1]. */
export function psnr(a, b) {
  const clamp = (value) => Math.min(Math.max(value, -1), 1);
  const squares = a.reduce((sum, value, i) => sum + (clamp(value) - clamp(b[i])) ** 2, 0);
  return squares === 0 ? Infinity : 10 * Math.log10((4 * a.length) / squares);
}

/** Return the largest difference of RGBA pixels from RGB bytes in hexadecimal. */
export function pixelDifference({ data }, hex) {
  const expected = Buffer.from(hex, "hex");
  let largest = data.length === (4 * expected.length) / 3 ? 0 : Infinity;
  expected.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value - data[4 * Math.floor(i / 3) + (i % 3)]));
  });
  return largest;
}

/** Serve with `answer(name, response)` during `use(address)`. */
export async function serving(answer, use) {
  const server = createServer((request, response) => answer(request.url.slice(1), response));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://127.0.0.1:${server.address().port}/`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** Answer with the files of a map. */
export function files(map) {
  return (name, response) => (map.has(name) ? response.end(map.get(name)) : response.writeHead(404).end());
}
