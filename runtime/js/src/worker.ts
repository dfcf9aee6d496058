/** The worker: one bundle, asked by `RemoteEngine` one request at a time. */

import { browser } from "./browserPlatform.js";
import { type Engine, openEngine } from "./engine.js";
import { sendError } from "./errors.js";
import { openPlace } from "./places.js";
import type { Reply, Request, Results } from "./protocol.js";

let engine: Engine | undefined;

// onnxruntime-web starts its threads from the file that it is in. If that is this one, they would never start
if ((globalThis as { name?: string }).name?.startsWith("em-pthread")) {
  throw new Error(
    "onnxruntime-web is bundled into galip-runtime's worker: let the bundler split code (esbuild: splitting; Vite: " +
      "worker.format 'es'), or use the option onnxruntime",
  );
}

globalThis.onmessage = async ({ data }: MessageEvent<Request>): Promise<void> => {
  try {
    const result = await answer(data);
    send(
      { kind: "result", result },
      result instanceof Float32Array || result instanceof Uint8ClampedArray ? [result.buffer] : [],
    );
  } catch (error) {
    send({ kind: "error", error: sendError(error) });
  }
};

async function answer(request: Request): Promise<Results[keyof Results]> {
  if (request.kind === "open") {
    const { place, wishes, onnxruntime, cache } = request;
    const report = (progress: { loaded: number; total: number }): void =>
      send({ kind: "progress", progress });
    engine = await openEngine(await openPlace(place, cache, report), wishes, browser(onnxruntime), report);
    return engine.info;
  }
  if (request.kind === "encode") return engine!.encode(request.prompt);
  return engine![request.kind](request.noise, request.sentence);
}

function send(reply: Reply, transfer: Transferable[] = []): void {
  (globalThis as unknown as Worker).postMessage(reply, transfer);
}
