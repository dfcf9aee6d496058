/** What `load` takes, checked. */

import type { Progress } from "./bundle/reading.js";
import type { Wishes } from "./engine.js";
import { shortly, UsageError } from "./errors.js";
import type { Warn } from "./model.js";

/** How to load a bundle. */
export interface LoadOptions {
  /**
   * `auto`, or `webgpu`, `wasm` or `cpu`, which is that device or an error. `auto` takes WebGPU in a browser
   * that has it and computes the same picture with it, else WebAssembly; in Node `cpu` before `wasm`.
   */
  readonly device?: "auto" | "webgpu" | "wasm" | "cpu" | undefined;
  /** `auto` (fp32 where the bundle has it) or a precision of the bundle, such as `w16a32`. */
  readonly precision?: string | undefined;
  /** CPU threads of one run; as many as there are, at most four for WebAssembly, if not given. */
  readonly threads?: number | undefined;
  /** Called with the bytes read so far and in all. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** Stops loading, with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Called with what a user should know; `console.warn` if not given. */
  readonly onWarning?: Warn | undefined;
}

/** Return the wishes in `options`. Throws UsageError; devices and precisions are checked later. */
export function checkWishes({ device = "auto", precision = "auto", threads }: LoadOptions): Wishes {
  if (threads !== undefined && !(Number.isSafeInteger(threads) && threads >= 1 && threads <= 1024)) {
    throw new UsageError(`threads is a whole number from 1 to 1024, not ${shortly(threads)}`);
  }
  return { device, precision, threads };
}
