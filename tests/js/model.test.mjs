// The model: Python's pictures, and what calls do when they are stopped, wrong or too many.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { inflateSync } from "node:zlib";
import {
  encodePng,
  load,
  MAX_PROMPT_LENGTH,
  QualityGateFailed,
  UsageError,
} from "../../runtime/js/dist/node.js";
import { toPixels } from "../../runtime/js/dist/picture.js";
import { bundleZip, floats, pixelDifference, psnr, vectors } from "./support.mjs";

const { pictures, "square of 3 steps": square, "truncation 0.5": truncated } = vectors("pictures");
const prompts = pictures.map(({ prompt }) => prompt);
const seeds = pictures.map(({ seed }) => seed);
const warnings = [];
let model;
before(async () => {
  model = await load(bundleZip, { onWarning: (text) => warnings.push(text) });
});
after(() => model.dispose());

for (const device of ["cpu", "wasm"]) {
  for (const precision of ["fp32", "w16a32"]) {
    test(`sentences, images and pictures on ${device} in ${precision}`, async () => {
      const model = await load(bundleZip, { device, precision, onWarning: () => {} });
      const sentence = await model.encodeText(prompts);
      const images = await model.decode(model.noise(seeds), sentence);
      const drawn = await model.generate({ prompts, seeds });
      pictures.forEach((expected, i) => {
        const vector = floats(expected.sentence);
        assert.ok(sentence[i].every((value, j) => Math.abs(value - vector[j]) < 1e-5));
        assert.ok(psnr(images[i], floats(expected.image)) > 90);
        assert.ok(pixelDifference(drawn[i], expected.pixels) <= 1);
      });
      await model.dispose();
    });
  }
}

test("pixels of the vectors' images are equal", () => {
  for (const { image, pixels } of pictures) {
    const side = Math.sqrt(floats(image).length / 3);
    assert.equal(pixelDifference({ data: toPixels(floats(image)), width: side }, pixels), 0);
  }
});

test("pixels are clamped, and halves are rounded to even numbers", () => {
  const halves = [-2, -1, 0, 1, 2, -0.99607843, 0.5 / 127.5 - 1, 1.5 / 127.5 - 1, 2.5 / 127.5 - 1];
  const pixels = toPixels(Float32Array.from(halves));
  assert.deepEqual([...pixels.slice(0, 4)], [0, 255, 0, 255]);
  assert.equal(pixels[4 * 2], 128); // 127.5
});

test("an interpolated square and a truncated picture", async () => {
  const frames = await model.interpolate({
    prompts: prompts.slice(0, 2),
    seeds: seeds.slice(0, 2),
    steps: 3,
    square: true,
  });
  assert.equal(frames.length, 9);
  const size = square.length / 9;
  frames.forEach((frame, i) =>
    assert.ok(pixelDifference(frame, square.slice(i * size, (i + 1) * size)) <= 1),
  );
  const [cut] = await model.generate({ prompts: prompts[0], seeds: seeds[0], truncation: 0.5 });
  assert.ok(pixelDifference(cut, truncated) <= 1);
});

test("the ends of a strip are the prompts' own pictures", async () => {
  const frames = await model.interpolate({ prompts: prompts.slice(0, 2), seeds: 7 });
  assert.equal(frames.length, 8);
  const ends = await model.generate({ prompts: prompts.slice(0, 2), seeds: 7 });
  assert.deepEqual(
    [frames[0].data, frames[7].data],
    ends.map(({ data }) => data),
  );
  const four = await model.interpolate({ prompts: prompts.slice(0, 4), seeds: seeds.slice(0, 4), steps: 2 });
  assert.deepEqual(
    four.map(({ data }) => data),
    (await model.generate({ prompts: prompts.slice(0, 4), seeds: seeds.slice(0, 4) })).map(
      ({ data }) => data,
    ),
  );
});

test("a picture alone equals the same picture among others", async () => {
  const many = await model.generate({ prompts, seeds });
  const [one] = await model.generate({ prompts: prompts[5], seeds: seeds[5] });
  assert.deepEqual(one, many[5]);
  assert.deepEqual([one.width, one.height, one.data.length], [8, 8, 256]);
  assert.ok(one.data.every((value, i) => i % 4 !== 3 || value === 255));
});

test("without seeds, pictures differ from call to call", async () => {
  const [a] = await model.generate({ prompts: "apple" });
  const [b] = await model.generate({ prompts: "apple" });
  assert.notDeepEqual(a, b);
});

test("a prompt that is cut is warned of, once a call", async () => {
  warnings.length = 0;
  await model.generate({ prompts: `${"a ".repeat(22)}tail`, seeds: [1, 2] });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /tail/);
});

test("odd prompts draw, and too long ones are refused", async () => {
  for (const prompt of [
    "",
    " ",
    "👩\u200d👩\u200d👧\u200d👦",
    "\ud83d",
    "\udc26\ud83d",
    "\0",
    "a".repeat(MAX_PROMPT_LENGTH),
  ]) {
    assert.equal((await model.generate({ prompts: prompt, seeds: 1 })).length, 1);
  }
  await assert.rejects(model.generate({ prompts: "x".repeat(2 ** 20), seeds: 1 }), UsageError);
});

const WRONG = {
  "no prompt": { prompts: [] },
  "a prompt that is no text": { prompts: ["a", 7] },
  "prompts that are nothing": { prompts: undefined },
  "two prompts and three seeds": { prompts: ["a", "b"], seeds: [1, 2, 3] },
  "a negative seed": { prompts: "a", seeds: -1 },
  "a fractional seed": { prompts: "a", seeds: [0.5] },
  "a truncation of 0": { prompts: "a", seeds: 1, truncation: 0 },
};
for (const [name, options] of Object.entries(WRONG)) {
  test(`${name}: UsageError`, () => assert.rejects(model.generate(options), UsageError));
}

test("interpolations that do not fit: UsageError", async () => {
  for (const options of [
    { prompts: "a", seeds: 1 },
    { prompts: ["a", "b", "c"], seeds: 1 },
    { prompts: ["a", "b"], seeds: 1, steps: 1 },
    { prompts: ["a", "b"], seeds: 1, square: true },
    { prompts: ["a", "b"], seeds: 1, steps: 2.5 },
  ]) {
    await assert.rejects(model.interpolate(options), UsageError);
  }
});

test("rows that do not fit: UsageError", async () => {
  const [z, e] = [model.noise(1), await model.encodeText("a")];
  for (const [noise, sentence] of [
    [[], []],
    [z, []],
    [[z[0].slice(1)], e],
    [z, [e[0].fill(NaN)]],
    [z[0], e[0]],
    [undefined, e],
    [[undefined], e],
  ]) {
    await assert.rejects(model.decode(noise, sentence), UsageError);
  }
});

test("plain lists of numbers do as rows", async () => {
  const images = await model.decode([[1, 2, 3, 4, 5]], [new Float64Array(6)]);
  assert.equal(images[0].length, 192);
});

test("progress counts pictures", async () => {
  const seen = [];
  await model.generate({ prompts: "a", seeds: [1, 2, 3], onProgress: (...counts) => seen.push(counts) });
  assert.deepEqual(seen, [
    [0, 3],
    [1, 3],
    [2, 3],
    [3, 3],
  ]);
});

test("a signal stops a call before its next picture", async () => {
  const stop = new AbortController();
  const seen = [];
  const onProgress = (done) => {
    seen.push(done);
    if (done === 2) stop.abort();
  };
  await assert.rejects(
    model.generate({ prompts: "a", seeds: [1, 2, 3, 4], signal: stop.signal, onProgress }),
    { name: "AbortError" },
  );
  assert.deepEqual(seen, [0, 1, 2]);
  await assert.rejects(model.generate({ prompts: "a", signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("of twenty fast drags only the newest is drawn", async () => {
  let stop = new AbortController();
  const drags = Array.from({ length: 20 }, (_, i) => {
    stop.abort();
    stop = new AbortController();
    return model.generate({ prompts: "a", seeds: i, signal: stop.signal });
  });
  const results = await Promise.allSettled(drags);
  assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
  assert.equal(results.at(-1).status, "fulfilled");
  assert.deepEqual(results.at(-1).value, await model.generate({ prompts: "a", seeds: 19 }));
});

test("calls at once do not mix", async () => {
  const [apart, together] = [
    [],
    await Promise.all(seeds.map((seed, i) => model.generate({ prompts: prompts[i], seeds: seed }))),
  ];
  for (const [i, seed] of seeds.entries())
    apart.push(await model.generate({ prompts: prompts[i], seeds: seed }));
  assert.deepEqual(together, apart);
});

test("a disposed model draws what it has begun and refuses the rest", async () => {
  const own = await load(bundleZip);
  const begun = own.generate({ prompts: "a", seeds: 1 });
  await begun;
  await Promise.all([own.dispose(), own.dispose()]);
  await assert.rejects(
    own.generate({ prompts: "a" }),
    (error) => error instanceof UsageError && error.message.includes("closed"),
  );
  const late = await load(bundleZip);
  const call = late.encodeText("a");
  await late.dispose();
  assert.equal((await call).length, 1);
});

test("numbers that are not finite are QualityGateFailed", async () => {
  await assert.rejects(
    model.decode([[3e38, 3e38, -3e38, 3e38, 3e38]], [[3e38, -3e38, 3e38, 3e38, 3e38, 3e38]]),
    QualityGateFailed,
  );
});

test("a PNG file holds the pixels and the texts", async () => {
  const [picture] = await model.generate({ prompts: "🐦 red", seeds: 2n ** 64n - 1n });
  const metadata = model.metadata("🐦 red", 2n ** 64n - 1n, 0.5);
  assert.deepEqual(metadata, {
    prompt: "🐦 red",
    seed: "18446744073709551615",
    truncation: "0.5",
    bundle: model.info().digest,
  });
  const png = Buffer.from(encodePng(picture, metadata));
  const chunks = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    chunks.push([
      png.toString("latin1", at + 4, at + 8),
      png.subarray(at + 8, at + 8 + png.readUInt32BE(at)),
    ]);
  }
  assert.deepEqual(
    chunks.map(([type]) => type),
    ["IHDR", "iTXt", "iTXt", "iTXt", "iTXt", "IDAT", "IEND"],
  );
  assert.equal(chunks[1][1].toString(), "prompt\0\0\0\0\0🐦 red");
  const lines = inflateSync(chunks[5][1]);
  const rgb = [...lines].filter((_, i) => i % 25 !== 0);
  assert.deepEqual(
    rgb,
    [...picture.data].filter((_, i) => i % 4 !== 3),
  );
});
