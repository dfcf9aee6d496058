// node server.mjs BUNDLE [PORT], then http://localhost:3000/picture.png?prompt=a+red+apple&seed=7
import Fastify from "fastify";
import { encodePng, load, seedSeries, UsageError } from "galip-runtime";

const [bundle, port = "3000"] = process.argv.slice(2);
const model = await load(bundle);
const server = Fastify();

server.get("/picture.png", async (request, reply) => {
  const { prompt, seed, truncation } = request.query;
  const stop = new AbortController(); // a visitor who has left needs no picture
  reply.raw.on("close", () => stop.abort());
  const seeds = seedSeries(seed);
  const cut = truncation === undefined ? undefined : Number(truncation);
  const [picture] = await model.generate({ prompts: prompt, seeds, truncation: cut, signal: stop.signal });
  return reply.type("image/png").send(Buffer.from(encodePng(picture, model.metadata(prompt, seeds, cut))));
});

server.setErrorHandler((error, request, reply) => {
  const status = error instanceof UsageError ? 400 : 500;
  return reply.code(status).send({ error: error.name, message: error.message });
});

process.once("SIGTERM", async () => {
  await server.close();
  await model.dispose();
});
console.log(await server.listen({ port: Number(port) }));
