// Noise and interpolation: the Python runtime's numbers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { lerp, slerp, UsageError } from "../../runtime/js/dist/node.js";
import {
  asSeeds,
  checkSeed,
  MAX_SEED,
  noise,
  NOISE_DEFINITION,
  philox,
  seedSeries,
} from "../../runtime/js/dist/noise.js";
import { floats, ulps, vectors } from "./support.mjs";

const { definition, rows, truncated, "between seeds 3 and 4": between } = vectors("noise");
const hex = (word) => word.toString(16).padStart(8, "0");

test("the vectors are of this definition", () => assert.deepEqual(definition, NOISE_DEFINITION));

test("words and numbers of a thousand seeds", () => {
  assert.ok(rows.length >= 1000);
  assert.ok(rows.some(([seed]) => seed === String(MAX_SEED)));
  for (const [seed, words, bits] of rows) {
    assert.equal(
      [0, 1]
        .flatMap((block) => philox(block, BigInt(seed)))
        .map(hex)
        .join(""),
      words,
      seed,
    );
    assert.ok(ulps(noise(seed, 8)[0], floats(bits)) <= 1, seed);
  }
});

test("truncated numbers", () => {
  for (const [seed, cut, bits] of truncated)
    assert.ok(ulps(noise(seed, 32, cut)[0], floats(bits)) <= 1, `${seed} ${cut}`);
});

test("a row depends on its seed alone, and is cut to any length", () => {
  const [a, b] = noise([5, 6], 37);
  assert.deepEqual(noise(6, 37)[0], b);
  assert.deepEqual(noise(5n, 10)[0], a.slice(0, 10));
});

test("seeds as numbers, bigints, digits and arrays", () => {
  assert.deepEqual(asSeeds([7, 7n, "7"]), [7n, 7n, 7n]);
  assert.deepEqual(asSeeds(Uint32Array.of(1, 2)), [1n, 2n]);
  assert.deepEqual(asSeeds(BigUint64Array.of(MAX_SEED)), [MAX_SEED]);
  assert.equal(checkSeed(String(MAX_SEED)), MAX_SEED);
  assert.equal(checkSeed(-0), 0n);
});

for (const seed of [
  -1,
  -1n,
  1.5,
  NaN,
  Infinity,
  2 ** 53,
  2n ** 64n,
  "18446744073709551616",
  "-1",
  "1.0",
  "0x7",
  " 7",
  "",
  "seven",
  null,
  true,
  {},
  [1],
]) {
  test(`the seed ${typeof seed} ${String(seed)} is refused`, () =>
    assert.throws(() => checkSeed(seed), UsageError));
}

test("no seeds are refused", () => assert.throws(() => asSeeds([]), UsageError));

test("a series of seeds", () => {
  assert.deepEqual(seedSeries("7", 3), [7n, 8n, 9n]);
  assert.ok(seedSeries()[0] < 2n ** 32n);
  assert.throws(() => seedSeries(MAX_SEED, 2), UsageError);
  assert.throws(() => seedSeries(1, 0), UsageError);
});

for (const cut of [0, -1, NaN, Infinity, "1", true]) {
  test(`the truncation ${String(cut)} is refused`, () => assert.throws(() => noise(1, 4, cut), UsageError));
}

test("a truncation of 30 changes nothing, and the smallest gives numbers within it", () => {
  assert.ok(ulps(noise(1, 64, 30)[0], noise(1, 64)[0]) <= 1);
  assert.ok(noise(1, 64, 1e-3)[0].every((value) => Math.abs(value) <= 1e-3 && Number.isFinite(value)));
});

test("lerp and slerp", () => {
  const [a, b] = noise([3, 4], 32);
  for (const [weight, line, circle] of between) {
    assert.ok(ulps(Float32Array.from(lerp(a, b, weight)), floats(line)) <= 1);
    assert.ok(ulps(Float32Array.from(slerp(a, b, weight)), floats(circle)) <= 2);
  }
  assert.deepEqual([...slerp([1, 0], [2, 0], 0.5)], [1.5, 0]);
});
