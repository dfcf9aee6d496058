/**
 * Noise: row i depends on seed i alone and is the same on every machine and in every language.
 *
 *     seed (64 bits) --Philox 4x32-10--> 32-bit words --> uniforms --Box-Muller--> normals
 */

import { shortly, UsageError } from "./errors.js";
import { erfc, inverseNormal } from "./normal.js";

/** A whole number from 0 to 2^64 − 1: a bigint, a safe integer, or its decimal digits. */
export type Seed = number | bigint | string;

/** The largest seed. */
export const MAX_SEED = 2n ** 64n - 1n;

/** What a bundle's manifest says of the noise. */
export const NOISE_DEFINITION: Readonly<Record<string, string>> = {
  name: "philox4x32-10/box-muller",
  key: "(seed mod 2^32, seed div 2^32), seed an integer in [0, 2^64 - 1]",
  counter: "(block mod 2^32, block div 2^32, 0, 0); block b gives elements 4b to 4b+3",
  uniforms: "u_i = (w_i + 0.5) / 2^32 for the block's words w_0 to w_3, in float64",
  normals:
    "for (i, j) in (0, 1), (2, 3): r = sqrt(-2 ln u_i), t = 6.283185307179586 * u_j; " +
    "elements r cos t, r sin t, in float64",
  rounding: "each element rounded to the nearest float32",
};

const MAX_PICTURES = 1_000_000;
const FRESH_SEEDS = 2 ** 32; // short enough to be typed again

/** Return a seed as a bigint from 0 to 2^64 − 1. Throws UsageError. */
export function checkSeed(seed: unknown): bigint {
  let value = -1n;
  if (typeof seed === "bigint") value = seed;
  else if (typeof seed === "number" && Number.isSafeInteger(seed)) value = BigInt(seed);
  else if (typeof seed === "string" && /^[0-9]{1,20}$/.test(seed)) value = BigInt(seed);
  if (value >= 0n && value <= MAX_SEED) return value;
  const hint =
    typeof seed === "number" && seed > Number.MAX_SAFE_INTEGER
      ? "; a number this large has lost digits: write a bigint"
      : "";
  throw new UsageError(
    `a seed is a whole number from 0 to ${MAX_SEED} (2^64 - 1), not ${shortly(seed)}${hint}`,
  );
}

/** Return one seed or a list of at least one as a list. Throws UsageError. */
export function asSeeds(seeds: unknown): bigint[] {
  const list: unknown[] = Array.isArray(seeds)
    ? seeds
    : ArrayBuffer.isView(seeds) && !(seeds instanceof DataView)
      ? Array.from(seeds as Uint32Array)
      : [seeds];
  if (!list.length) throw new UsageError("there is no seed: give a whole number or a list of at least one");
  return list.map(checkSeed);
}

/** Return `count` consecutive seeds from `seed` on; without `seed`, from a random one below 2^32. Throws UsageError. */
export function seedSeries(seed?: Seed, count = 1): bigint[] {
  if (!Number.isSafeInteger(count) || count < 1 || count > MAX_PICTURES) {
    throw new UsageError(`count is a whole number from 1 to ${MAX_PICTURES}, not ${shortly(count)}`);
  }
  const first = seed === undefined ? BigInt(Math.floor(Math.random() * FRESH_SEEDS)) : checkSeed(seed);
  if (first + BigInt(count) - 1n > MAX_SEED) {
    throw new UsageError(`${count} seeds from ${first} on pass the largest, ${MAX_SEED} (2^64 - 1)`);
  }
  return Array.from({ length: count }, (_, index) => first + BigInt(index));
}

/** Return `truncation`, a finite number above 0 or undefined. Throws UsageError. */
export function checkTruncation(truncation: unknown): number | undefined {
  if (truncation === undefined || truncation === null) return undefined;
  if (typeof truncation === "number" && truncation > 0 && truncation < Infinity) return truncation;
  throw new UsageError(`truncation must be a number above 0, not ${shortly(truncation)}`);
}

/** Compute Philox 4x32-10 (Salmon et al., SC 2011): the four words of a block. */
export function philox(block: number, seed: bigint): [number, number, number, number] {
  let [c0, c1, c2, c3] = [block >>> 0, Math.floor(block / 2 ** 32) >>> 0, 0, 0];
  let [k0, k1] = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = product(0xd2511f53, c0);
    const [high1, low1] = product(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Multiply two 32-bit words: the product's upper and lower word. */
function product(a: number, b: number): [number, number] {
  const [a1, a0, b1, b0] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const low = a0 * b0;
  const middle = a1 * b0 + (low >>> 16); // below 2^32
  const other = a0 * b1 + (middle & 0xffff);
  return [(a1 * b1 + (middle >>> 16) + Math.floor(other / 65536)) >>> 0, Math.imul(a, b) >>> 0];
}

/**
 * Return standard normal noise, a row of `dim` numbers a seed; with `truncation`, cut at ± it.
 *
 * Truncation maps a number to the same quantile of the cut distribution, so a seed's picture changes smoothly
 * with it. Throws UsageError.
 */
export function noise(seeds: Seed | readonly Seed[], dim: number, truncation?: number): Float32Array[] {
  const threshold = checkTruncation(truncation);
  return asSeeds(seeds).map((seed) => {
    const row = normals(seed, dim);
    return Float32Array.from(threshold === undefined ? row : row.map((value) => truncated(value, threshold)));
  });
}

function normals(seed: bigint, dim: number): number[] {
  const row: number[] = [];
  for (let block = 0; row.length < dim; block++) {
    const uniforms = philox(block, seed).map((word) => (word + 0.5) / 2 ** 32);
    for (const i of [0, 2]) {
      const radius = Math.sqrt(-2 * Math.log(uniforms[i]!));
      const angle = 6.283185307179586 * uniforms[i + 1]!;
      row.push(radius * Math.cos(angle), radius * Math.sin(angle));
    }
  }
  return row.slice(0, dim);
}

function truncated(value: number, threshold: number): number {
  const outside = erfc(threshold / Math.SQRT2); // P(|z| > T)
  const tail = 0.5 * erfc(Math.abs(value) / Math.SQRT2); // P(Z > |z|)
  const magnitude = -inverseNormal(Math.max(tail * (1 - outside) + outside / 2, 5e-324));
  return (value < 0 ? -1 : 1) * Math.min(magnitude, threshold);
}
