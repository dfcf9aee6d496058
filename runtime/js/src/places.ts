/** Where a bundle can be loaded from in a browser. */

import { download, FilesSource, UrlSource, ZipSource, type BundleSource } from "./bundle/sources.js";
import { KeptFiles } from "./bundle/cache.js";
import type { Progress } from "./bundle/reading.js";
import { shortly, UsageError } from "./errors.js";
import type { Place } from "./protocol.js";

/** An address, a ZIP archive, or the files of a folder: chosen, dropped, or by path. */
export type BundlePlace =
  string | URL | Blob | ArrayBuffer | Uint8Array<ArrayBuffer> | Iterable<File> | ReadonlyMap<string, Blob>;

const MAX_ARCHIVE_BYTES = 2 ** 32;

/** Return where the bundle is; relative addresses are relative to `base`. Throws UsageError. */
export function asPlace(place: BundlePlace, base: string): Place {
  if (typeof place === "string" || place instanceof URL) {
    if (!URL.canParse(place, base)) throw new UsageError(`${shortly(place)} is not an address`);
    return { kind: "url", url: new URL(place, base).href };
  }
  if (place instanceof Blob) {
    return { kind: "zip", name: "name" in place ? String(place.name) : "the archive", archive: place };
  }
  if (place instanceof ArrayBuffer || place instanceof Uint8Array) {
    return { kind: "zip", name: "the archive", archive: new Blob([place]) };
  }
  if (typeof place === "object" && place !== null && Symbol.iterator in place) {
    const items = [...(place as Iterable<File | [string, Blob]>)];
    const files = new Map(
      items.map((item) => (Array.isArray(item) ? item : [item.webkitRelativePath || item.name, item])),
    );
    return { kind: "files", name: "the folder", files };
  }
  throw new UsageError(
    `a bundle is an address, a ZIP archive or the files of a folder, not ${shortly(place)}`,
  );
}

/** Open a place. `cache`: keep what is downloaded for the next load. Throws FileRefused. */
export async function openPlace(
  place: Place,
  cache: boolean,
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<BundleSource> {
  if (place.kind === "zip")
    return new ZipSource(place.name, new Uint8Array(await place.archive.arrayBuffer()));
  if (place.kind === "files") return new FilesSource(place.name, place.files);
  const url = new URL(place.url);
  if (url.pathname.endsWith(".zip")) {
    const report = (loaded: number): void => onProgress?.({ loaded, total: loaded });
    return new ZipSource(url.href, await download(url, { limit: MAX_ARCHIVE_BYTES, signal, report }));
  }
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return new UrlSource(url, cache ? await KeptFiles.open() : undefined);
}
