// The shipped model: Python's pictures in fp32, on both devices. GALIP_BUNDLE names another bundle of it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../../runtime/js/dist/node.js";
import { floats, pixelDifference, shippedBundle, vectors } from "./support.mjs";

const { source, pictures } = vectors("shipped");

for (const device of ["cpu", "wasm"]) {
  for (const precision of ["fp32", "w16a32"]) {
    test(`the shipped model on ${device} in ${precision}`, async (context) => {
      const model = await load(shippedBundle, { device });
      const { precisions, source: found } = model.info();
      await model.dispose();
      assert.equal(found.sha256, source);
      if (precisions.includes(precision)) await agrees({ device, precision });
      else context.skip(`the bundle has only ${precisions}`);
    });
  }
}

async function agrees(options) {
  const model = await load(shippedBundle, options);
  const prompts = pictures.map(({ prompt }) => prompt);
  const sentences = await model.encodeText(prompts);
  const drawn = await model.generate({ prompts, seeds: pictures.map(({ seed }) => seed) });
  pictures.forEach(({ prompt, sentence, pixels }, i) => {
    const expected = floats(sentence);
    assert.ok(
      sentences[i].every((value, j) => Math.abs(value - expected[j]) < 1e-4),
      prompt,
    );
    assert.ok(pixelDifference(drawn[i], pixels) <= 1, prompt);
  });
  await model.dispose();
}
