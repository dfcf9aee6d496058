// PNG files, as far as tests need to look into them.
import { inflateSync } from "node:zlib";

/** Return the chunks of a PNG file: type and data of each. */
export function chunks(bytes) {
  const found = [];
  for (let at = 8; at < bytes.length;) {
    const length = bytes.readUInt32BE(at);
    found.push([bytes.toString("latin1", at + 4, at + 8), bytes.subarray(at + 8, at + 8 + length)]);
    at += length + 12;
  }
  return found;
}

/** Return the largest difference of an RGB file's pixels from others. */
export function largestDifference(bytes, expected) {
  const parts = chunks(bytes);
  const width = parts[0][1].readUInt32BE(0);
  const lines = inflateSync(Buffer.concat(parts.filter(([type]) => type === "IDAT").map(([, data]) => data)));
  const stride = 3 * width;
  let largest = lines.length === (expected.length / stride) * (stride + 1) ? 0 : Infinity;
  const rows = [];
  for (let y = 0; y < expected.length / stride; y++) {
    const filter = lines[y * (stride + 1)];
    const row = Uint8Array.from(lines.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    const above = rows.at(-1) ?? new Uint8Array(stride);
    for (let x = 0; x < stride; x++) {
      const left = x >= 3 ? row[x - 3] : 0;
      const corner = x >= 3 ? above[x - 3] : 0;
      row[x] += predicted(filter, left, above[x], corner);
      largest = Math.max(largest, Math.abs(row[x] - expected[y * stride + x]));
    }
    rows.push(row);
  }
  return largest;
}

/** Return what a PNG filter predicts of a byte from its neighbours (PNG specification, 9.2). */
function predicted(filter, left, above, corner) {
  if (filter < 4) return [0, left, above, (left + above) >> 1][filter];
  const estimate = left + above - corner;
  const [a, b, c] = [left, above, corner].map((value) => Math.abs(estimate - value));
  return a <= b && a <= c ? left : b <= c ? above : corner;
}
