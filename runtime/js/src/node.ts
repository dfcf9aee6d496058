/** galip-runtime in Node. */

import { readFile, realpath, stat } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { MANIFEST_NAME, REPAIR } from "./bundle/manifest.js";
import { type BundleSource, type Reading, ZipSource } from "./bundle/sources.js";
import { openEngine } from "./engine.js";
import { FileRefused, messageOf, ProviderUnavailable } from "./errors.js";
import { Model } from "./model.js";
import { checkWishes, type LoadOptions } from "./options.js";
import { asPlace, type BundlePlace, openPlace } from "./places.js";
import type { Device, OrtModule, Platform } from "./runners/devices.js";

export * from "./common.js";
export type { BundlePlace } from "./places.js";

const MOST_WASM_THREADS = 4;
const BUNDLE = "a bundle is a folder that `galip export` wrote";

/**
 * Load a bundle: a folder's path, a ZIP archive's path or bytes, an http address, or files.
 *
 * Nothing is parsed before it is verified. Throws FileRefused for a bundle that is not whole and as it was exported,
 * ProviderUnavailable where the device is not available, UsageError for an unknown device or precision.
 */
export async function load(bundle: BundlePlace, options: LoadOptions = {}): Promise<Model> {
  const { onProgress, signal, onWarning = console.warn } = options;
  signal?.throwIfAborted();
  const wishes = checkWishes(options);
  const source = isPath(bundle)
    ? await openPath(bundle instanceof URL ? fileURLToPath(bundle) : bundle)
    : await openPlace(asPlace(bundle, pathToFileURL("./").href), false, onProgress, signal);
  const engine = await openEngine(source, wishes, NODE, onProgress, signal);
  return new Model(engine, (data, width, height) => ({ data, width, height }), onWarning);
}

const NODE: Platform = {
  name: "Node",
  devices: ["cpu", "wasm"],
  threads(device, wanted) {
    const most = device === "wasm" ? MOST_WASM_THREADS : Infinity;
    return { count: wanted ?? Math.min(availableParallelism(), most) };
  },
  async provider(device) {
    return device;
  },
  async load(device, threads) {
    const ort = await importOnnxruntime(device);
    if (device === "wasm") ort.env.wasm.numThreads = threads;
    ort.env.logLevel = "fatal";
    return ort;
  },
};

async function importOnnxruntime(device: Device): Promise<OrtModule> {
  const name = device === "cpu" ? "onnxruntime-node" : "onnxruntime-web";
  process.env["ORT_DISABLE_TELEMETRY"] ??= "1"; // read when it is imported
  try {
    return device === "cpu" ? await import("onnxruntime-node") : await import("onnxruntime-web");
  } catch (error) {
    throw new ProviderUnavailable(
      `device ${device} needs ${name} (${messageOf(error)}): npm install ${name}`,
    );
  }
}

function isPath(bundle: BundlePlace): bundle is string | URL {
  if (bundle instanceof URL) return bundle.protocol === "file:";
  return typeof bundle === "string" && !/^https?:/i.test(bundle);
}

async function openPath(path: string): Promise<BundleSource> {
  const status = await stat(path).catch((error: unknown) => {
    throw new FileRefused(`${path} cannot be read (${messageOf(error)}): ${BUNDLE}`);
  });
  return status.isDirectory() ? new FolderSource(path) : new ZipSource(path, await readFile(path));
}

/** A bundle in a folder. */
class FolderSource implements BundleSource {
  constructor(readonly name: string) {}

  async size(file: string): Promise<number> {
    const path = join(this.name, file);
    const status = await stat(path).catch((error: unknown) => {
      throw unreadable(path, error);
    });
    if (!status.isFile()) throw new FileRefused(`${path} is not a regular file: ${REPAIR}`);
    return status.size;
  }

  async read(file: string, { limit, signal, report }: Reading): Promise<Uint8Array> {
    const path = join(this.name, file);
    if ((await this.size(file)) > limit) {
      throw new FileRefused(`${path} has more than ${limit} bytes: ${REPAIR}`);
    }
    await this.checkLink(path);
    try {
      const bytes = await readFile(path, { signal });
      report?.(bytes.length);
      return bytes;
    } catch (error) {
      signal?.throwIfAborted();
      throw unreadable(path, error);
    }
  }

  /** Throw FileRefused for a link that leads out of the bundle, except to the blobs of Hugging Face's cache. */
  private async checkLink(path: string): Promise<void> {
    const [folder, target] = await Promise.all([realpath(this.name), realpath(path)]);
    const cache = /^(.*[/\\])snapshots[/\\]/.exec(folder + sep)?.[1];
    const allowed = [folder + sep, ...(cache === undefined ? [] : [`${cache}blobs${sep}`])];
    if (allowed.some((place) => target.startsWith(place))) return;
    throw new FileRefused(
      `${path} is a link to ${target}, which is outside the bundle: copy the file into the bundle`,
    );
  }
}

function unreadable(path: string, error: unknown): FileRefused {
  const hint = path.endsWith(MANIFEST_NAME) ? `${BUNDLE}, with ${MANIFEST_NAME} in it` : REPAIR;
  return new FileRefused(`${path} cannot be read (${messageOf(error)}): ${hint}`);
}
