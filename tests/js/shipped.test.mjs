// The shipped model: Python's pictures on both devices. GALIP_BUNDLE is its bundle, with fp32 and w16a32.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../../runtime/js/dist/node.js";
import { floats, pixelDifference, vectors } from "./support.mjs";

const bundle = process.env.GALIP_BUNDLE;
const { source, pictures } = vectors("shipped");

for (const device of ["cpu", "wasm"]) {
  for (const precision of ["fp32", "w16a32"]) {
    test(
      `the shipped model on ${device} in ${precision}`,
      { skip: !bundle && "GALIP_BUNDLE is not set" },
      async () => {
        const model = await load(bundle, { device, precision });
        assert.equal(model.info().source.sha256, source);
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
      },
    );
  }
}
