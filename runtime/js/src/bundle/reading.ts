/** A bundle's files, each verified before anything parses it. */

import { FileRefused, messageOf } from "../errors.js";
import {
  checkFile,
  checkSize,
  type Manifest,
  MANIFEST_NAME,
  MAX_MANIFEST_BYTES,
  parseManifest,
} from "./manifest.js";
import type { BundleSource } from "./sources.js";

/** Bytes of all that is read of the bundle. */
export interface Progress {
  readonly loaded: number;
  readonly total: number;
}

const ENGINES = "engines/"; // for TensorRT

/** Read the manifest. Throws FileRefused. */
export async function readManifest(source: BundleSource, signal?: AbortSignal): Promise<Manifest> {
  const bytes = await source.read(MANIFEST_NAME, { limit: MAX_MANIFEST_BYTES, signal });
  try {
    const manifest = await parseManifest(bytes);
    await source.keep?.(MANIFEST_NAME, bytes);
    return manifest;
  } catch (error) {
    if (!(error instanceof FileRefused)) throw error;
    throw new FileRefused(`${MANIFEST_NAME} of ${source.name} is refused: ${messageOf(error)}`);
  }
}

/**
 * Return the verified bytes of `graphs` and of every file that is no graph, by name.
 *
 * Where the source knows sizes, those of all listed files are checked first. Throws FileRefused.
 */
export async function readFiles(
  source: BundleSource,
  manifest: Manifest,
  graphs: readonly string[],
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<Map<string, Uint8Array>> {
  if (source.size) {
    for (const [name, entry] of manifest.files) checkSize(name, await source.size(name), entry);
  }
  const all = new Set(Object.values(manifest.graphs).flatMap((precisions) => [...precisions.values()]));
  const others = [...manifest.files.keys()].filter((name) => !all.has(name) && !name.startsWith(ENGINES));
  const names = [...new Set([...others, ...graphs])];
  const total = names.reduce((sum, name) => sum + manifest.files.get(name)!.size, 0);
  const loaded = new Map<string, number>();
  const stop = new AbortController();
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const read = async (name: string): Promise<[string, Uint8Array]> => {
    const report = (bytes: number): void => {
      loaded.set(name, bytes);
      if (!stop.signal.aborted)
        onProgress?.({ loaded: [...loaded.values()].reduce((a, b) => a + b, 0), total });
    };
    return [name, await readFile(source, manifest, name, report, either)];
  };
  try {
    return new Map(await Promise.all(names.map(read)));
  } catch (error) {
    stop.abort(error); // the other downloads
    throw error;
  }
}

/** Read and verify a file; what was kept and is damaged is read again from where it came. */
async function readFile(
  source: BundleSource,
  manifest: Manifest,
  name: string,
  report: (bytes: number) => void,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const entry = manifest.files.get(name)!;
  const reading = { limit: entry.size, entry, report, signal };
  let bytes = await source.read(name, reading);
  try {
    await checkFile(name, bytes, entry);
  } catch (error) {
    if (!source.keep || !(error instanceof FileRefused)) throw error;
    bytes = await source.read(name, { ...reading, fresh: true });
    await checkFile(name, bytes, entry);
  }
  signal.throwIfAborted();
  await source.keep?.(name, bytes, entry);
  return bytes;
}
