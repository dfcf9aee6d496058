// The real client of OpenAI for Node, against a real service.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { noService, Service } from "./service.mjs";
import { require } from "./support.mjs";

const { default: OpenAI, ...errors } = await import(pathToFileURL(require.resolve("openai")).href);
const PNG = [0x89, 0x50, 0x4e, 0x47];

describe("OpenAI's client", { skip: noService }, () => {
  let service, openai;

  before(async () => {
    service = await new Service().open(["--max-images", "3", "--queue", "4"], { key: true });
    openai = client({});
  });
  after(() => service?.close());

  function client(options) {
    return new OpenAI({
      baseURL: `${service.address}v1`,
      apiKey: service.key,
      maxRetries: 0,
      ...options,
    });
  }

  async function fails(kind, call) {
    const error = await call.catch((reason) => reason);
    assert.ok(error instanceof kind, String(error));
    assert.equal(typeof error.code, "string");
    return error;
  }

  test("pictures in base64, of consecutive seeds", async () => {
    const { data, created, size } = await openai.images.generate({ prompt: "a red apple", n: 3, seed: 7 });
    assert.ok(created > 1.7e9);
    assert.equal(size, "8x8");
    assert.deepEqual(
      data.map(({ seed }) => seed),
      [7, 8, 9],
    );
    for (const { b64_json: text } of data)
      assert.deepEqual([...Buffer.from(text, "base64").subarray(0, 4)], PNG);
    const again = await openai.images.generate({ prompt: "a red apple", n: 1, seed: "8", model: "galip" });
    assert.equal(again.data[0].b64_json, data[1].b64_json);
  });

  test("a seed that no number of JavaScript holds", async () => {
    const seeds = ["18446744073709551615"];
    const { data } = await openai.images.generate({ prompt: "a", seeds });
    assert.deepEqual(
      data.map(({ seed }) => seed),
      seeds,
    );
  });

  test("addresses lead to the same pictures", async () => {
    const wish = { prompt: "a & b, ü 🦊", n: 2, seed: 7 };
    const { data } = await openai.images.generate({ ...wish, response_format: "url" });
    const files = await openai.images.generate({ ...wish, response_format: "b64_json" });
    for (const [i, { url }] of data.entries()) {
      assert.ok(url.startsWith(service.address));
      const response = await fetch(url, { headers: { Authorization: `Bearer ${service.key}` } });
      assert.equal(response.headers.get("content-type"), "image/png");
      assert.equal(Buffer.from(await response.arrayBuffer()).toString("base64"), files.data[i].b64_json);
    }
  });

  test("models", async () => {
    const models = [];
    for await (const model of openai.models.list()) models.push(model);
    assert.equal(models.length, 1);
    assert.match(models[0].id, /^galip-[0-9a-f]{12}$/);
    assert.equal((await openai.models.retrieve(models[0].id)).object, "model");
  });

  test("errors are the client's own classes, with the service's words", async () => {
    const generate = (change, other = openai) => other.images.generate({ prompt: "a", ...change });
    const tooMany = await fails(errors.BadRequestError, generate({ n: 4 }));
    assert.match(tooMany.message, /at most 3/);
    assert.equal(tooMany.param, "n");
    await fails(errors.BadRequestError, generate({ size: "9x9" }));
    await fails(errors.BadRequestError, generate({ prompt: 7 }));
    await fails(errors.BadRequestError, generate({ nothing: 1 }));
    await fails(errors.NotFoundError, generate({ model: "dall-e-3" }));
    const unknown = await fails(errors.AuthenticationError, generate({}, client({ apiKey: "another" })));
    assert.equal(unknown.code, "invalid_api_key");
    const long = "x".repeat(70_000);
    const large = await generate({ user: long }).catch((reason) => reason);
    assert.ok(large instanceof errors.APIError);
    assert.equal(large.status, 413);
  });

  test("a full queue is a RateLimitError that says when to come back", async () => {
    const calls = Array.from({ length: 40 }, (_, seed) =>
      openai.images.generate({ prompt: "a", seed, n: 3 }).catch((error) => error),
    );
    const ends = await Promise.all(calls);
    const refused = ends.filter((end) => end instanceof Error);
    assert.ok(refused.length > 0 && refused.length < 40, `${refused.length} of 40`);
    for (const error of refused) {
      assert.ok(error instanceof errors.RateLimitError, String(error));
      assert.equal(error.code, "queue_full");
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
    }
    const patient = client({ maxRetries: 5 });
    assert.equal((await patient.images.generate({ prompt: "a", seed: 1 })).data.length, 1);
  });

  test("a model that fails is an InternalServerError with the id that the log has", async () => {
    const broken = await new Service().open([], { nan: true });
    try {
      const options = { baseURL: `${broken.address}v1`, apiKey: "none" };
      const call = client(options).images.generate({ prompt: "a" });
      const error = await fails(errors.InternalServerError, call);
      assert.equal(error.requestID, error.error.id);
      await broken.logs(error.requestID);
    } finally {
      await broken.close();
    }
  });

  test("no service is an APIConnectionError", async () => {
    const gone = client({ baseURL: "http://127.0.0.1:9/v1" }); // the port of `discard`, where nothing listens
    const error = await gone.images.generate({ prompt: "a" }).catch((reason) => reason);
    assert.ok(error instanceof errors.APIConnectionError);
  });
});
