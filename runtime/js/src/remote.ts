/** The page's side of a worker. */

import type { Progress } from "./bundle/reading.js";
import type { Encoded, Engine, Info } from "./engine.js";
import { ProviderUnavailable, receiveError } from "./errors.js";
import type { Reply, Request, Results } from "./protocol.js";

/** An engine in a worker. `Model` sends it one request at a time. */
export class RemoteEngine implements Engine {
  private constructor(
    private readonly worker: Worker,
    readonly info: Info,
  ) {}

  /** Let a worker load a bundle. If that fails or is stopped, the worker ends. */
  static async open(
    worker: Worker,
    request: Extract<Request, { kind: "open" }>,
    onProgress?: (progress: Progress) => void,
    signal?: AbortSignal,
  ): Promise<RemoteEngine> {
    try {
      return new RemoteEngine(worker, await ask(worker, request, onProgress, signal));
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  encode(prompt: string): Promise<Encoded> {
    return ask(this.worker, { kind: "encode", prompt });
  }

  decode(noise: Float32Array, sentence: Float32Array): Promise<Float32Array> {
    return ask(this.worker, { kind: "decode", noise, sentence });
  }

  draw(noise: Float32Array, sentence: Float32Array): Promise<Uint8ClampedArray<ArrayBuffer>> {
    return ask(this.worker, { kind: "draw", noise, sentence });
  }

  async close(): Promise<void> {
    this.worker.terminate();
  }
}

function ask<R extends Request>(
  worker: Worker,
  request: R,
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<Results[R["kind"]]> {
  let stop: () => void;
  const answer = new Promise<Results[R["kind"]]>((resolve, reject) => {
    stop = () => reject(signal?.reason);
    worker.onerror = ({ message = "its file cannot be loaded" }) => {
      reject(new ProviderUnavailable(`the worker fails: ${message}`));
    };
    worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      if (data.kind === "progress") onProgress?.(data.progress);
      else if (data.kind === "result") resolve(data.result as Results[R["kind"]]);
      else reject(receiveError(data.error));
    };
    signal?.addEventListener("abort", stop);
    worker.postMessage(request);
  });
  return answer.finally(() => signal?.removeEventListener("abort", stop));
}
