/** galip-runtime in a browser: everything but the API runs in a worker. */

import { Model } from "./model.js";
import { checkWishes, type LoadOptions } from "./options.js";
import { asPlace, type BundlePlace } from "./places.js";
import { RemoteEngine } from "./remote.js";

export * from "./common.js";
export type { BundlePlace } from "./places.js";

/** How to load a bundle in a browser. */
export interface BrowserLoadOptions extends LoadOptions {
  /** The address of the folder with onnxruntime-web's files, for pages without a bundler. */
  readonly onnxruntime?: string | URL | undefined;
  /** Whether to keep what is downloaded for the next load and for use offline; true if not given. */
  readonly cache?: boolean | undefined;
}

/**
 * Load a bundle: an address, a ZIP archive, or the files of a folder.
 *
 * Nothing is parsed before it is verified. Throws FileRefused for a bundle that is not whole and as it was exported,
 * ProviderUnavailable where the device is not available, UsageError for an unknown device or precision.
 */
export async function load(bundle: BundlePlace, options: BrowserLoadOptions = {}): Promise<Model<ImageData>> {
  const { onnxruntime, cache = true, onProgress, signal, onWarning = console.warn } = options;
  const folder =
    onnxruntime === undefined ? undefined : new URL(onnxruntime, document.baseURI).href.replace(/\/*$/, "/");
  const request = {
    kind: "open",
    place: asPlace(bundle, document.baseURI),
    wishes: checkWishes(options),
    onnxruntime: folder,
    cache,
  } as const;
  signal?.throwIfAborted();
  const worker = new Worker(new URL("./worker.js", import.meta.url), {
    type: "module",
    name: "galip-runtime",
  });
  const engine = await RemoteEngine.open(worker, request, onProgress, signal);
  return new Model(engine, (data, width, height) => new ImageData(data, width, height), onWarning);
}
