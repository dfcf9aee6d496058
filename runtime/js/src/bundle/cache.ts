/** The browser's Cache API: verified files of bundles, kept for the next load and for use offline. */

import type { FileEntry } from "./manifest.js";

/** The name of our cache. */
export const CACHE_NAME = "galip-runtime";

/** What is kept of the bundles on one origin. */
export class KeptFiles {
  private constructor(private readonly cache: Cache) {}

  /** Open the cache; undefined where there is none, as in a private window or in Node. */
  static async open(): Promise<KeptFiles | undefined> {
    try {
      return typeof caches === "undefined" ? undefined : new KeptFiles(await caches.open(CACHE_NAME));
    } catch {
      return undefined; // the browser forbids it: everything works, only slower
    }
  }

  /** Return what `put` was given for the same address and hash. */
  async find(url: URL, entry?: FileEntry): Promise<Uint8Array | undefined> {
    const response = await this.cache.match(keyOf(url, entry));
    return response && new Uint8Array(await response.arrayBuffer());
  }

  /** Keep a file, in place of any other from the same address. Without room for it nothing is kept. */
  async put(url: URL, bytes: Uint8Array, entry?: FileEntry): Promise<void> {
    try {
      const key = keyOf(url, entry);
      for (const other of await this.cache.keys(url.href, { ignoreSearch: true })) {
        if (other.url !== key) await this.cache.delete(other);
      }
      await this.cache.put(key, new Response(bytes as Uint8Array<ArrayBuffer>));
    } catch (error) {
      if (!(error instanceof DOMException)) throw error; // QuotaExceededError
    }
  }
}

/** The hash is part of the key: a new bundle at an old address is another file. */
function keyOf(url: URL, entry?: FileEntry): string {
  const key = new URL(url);
  key.search = entry ? `sha256=${entry.sha256}` : "";
  key.hash = "";
  return key.href;
}
