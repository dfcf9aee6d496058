/** The messages between a page and its worker. */

import type { Progress } from "./bundle/reading.js";
import type { Encoded, Info, Wishes } from "./engine.js";
import type { SentError } from "./errors.js";

/** Where the bundle is, in a form that a worker can be sent. */
export type Place =
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "zip"; readonly name: string; readonly archive: Blob }
  | { readonly kind: "files"; readonly name: string; readonly files: ReadonlyMap<string, Blob> };

/** What a page asks. The first request is `open`. */
export type Request =
  | {
      readonly kind: "open";
      readonly place: Place;
      readonly wishes: Wishes;
      readonly onnxruntime: string | undefined;
      readonly cache: boolean;
    }
  | { readonly kind: "encode"; readonly prompt: string }
  | { readonly kind: "decode" | "draw"; readonly noise: Float32Array; readonly sentence: Float32Array };

/** What each request returns. */
export interface Results {
  open: Info;
  encode: Encoded;
  decode: Float32Array;
  draw: Uint8ClampedArray<ArrayBuffer>;
}

/** What a worker says: how far it is with `open`, or the answer to the request in progress. */
export type Reply =
  | { readonly kind: "progress"; readonly progress: Progress }
  | { readonly kind: "result"; readonly result: Results[keyof Results] }
  | { readonly kind: "error"; readonly error: SentError };
