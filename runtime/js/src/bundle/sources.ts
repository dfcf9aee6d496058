/** Where a bundle's files come from: an address, a ZIP archive, or files that the user chose. */

import { unzipSync } from "fflate";
import { FileRefused, messageOf } from "../errors.js";
import { concatenated } from "../bytes.js";
import type { KeptFiles } from "./cache.js";
import { type FileEntry, MANIFEST_NAME, REPAIR } from "./manifest.js";

/** How a file is read. */
export interface Reading {
  /** The most bytes that the file may have. */
  readonly limit: number;
  /** What the manifest lists of it; not for the manifest itself. */
  readonly entry?: FileEntry;
  /** Whether to pass over what is kept from an earlier load. */
  readonly fresh?: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Called with the number of bytes so far. */
  readonly report?: (bytes: number) => void;
}

/** A folder of files, whose content may be anything. */
export interface BundleSource {
  /** For messages. */
  readonly name: string;
  /** Return the bytes of a file. Throws FileRefused if there is none or it is too large. */
  read(file: string, reading: Reading): Promise<Uint8Array>;
  /** Return the size of a file; undefined where only reading it tells. Throws FileRefused if there is none. */
  size?(file: string): Promise<number>;
  /** Keep bytes that were verified for the next load. */
  keep?(file: string, bytes: Uint8Array, entry?: FileEntry): Promise<void>;
}

/** A bundle at an address: a folder that a server has. */
export class UrlSource implements BundleSource {
  readonly name: string;

  /** `kept`: what earlier loads have kept; undefined to keep nothing. */
  constructor(
    private readonly base: URL,
    private readonly kept?: KeptFiles,
  ) {
    this.name = base.href;
  }

  async read(file: string, reading: Reading): Promise<Uint8Array> {
    const url = new URL(file, this.base);
    // the manifest is asked for each time, since another bundle may be there by now
    const kept = reading.entry && !reading.fresh ? await this.kept?.find(url, reading.entry) : undefined;
    if (kept) {
      reading.report?.(kept.length);
      return kept;
    }
    try {
      return await download(url, reading);
    } catch (error) {
      const offline = error instanceof Unreachable && !reading.entry ? await this.kept?.find(url) : undefined;
      if (offline) return offline;
      throw error;
    }
  }

  async keep(file: string, bytes: Uint8Array, entry?: FileEntry): Promise<void> {
    await this.kept?.put(new URL(file, this.base), bytes, entry);
  }
}

/** A bundle in a ZIP archive, at its top or in a folder. */
export class ZipSource implements BundleSource {
  private readonly sizes = new Map<string, number>();
  private readonly prefix: string;

  /** Throws FileRefused if it is no ZIP archive with a manifest in it. */
  constructor(
    readonly name: string,
    private readonly archive: Uint8Array,
  ) {
    this.unzip(({ name: file, originalSize }) => {
      this.sizes.set(file, originalSize);
      return false;
    });
    this.prefix = folderOfManifest(this.sizes.keys(), name);
  }

  async size(file: string): Promise<number> {
    const size = this.sizes.get(this.prefix + file);
    if (size === undefined) throw missing(file, this.name);
    return size;
  }

  async read(file: string, { limit, report }: Reading): Promise<Uint8Array> {
    if ((await this.size(file)) > limit) throw tooLarge(file, limit);
    const path = this.prefix + file;
    const bytes = this.unzip((entry) => entry.name === path)[path];
    if (!bytes) throw missing(file, this.name);
    report?.(bytes.length);
    return bytes;
  }

  private unzip(
    filter: (file: { name: string; originalSize: number }) => boolean,
  ): Record<string, Uint8Array> {
    try {
      return unzipSync(this.archive, { filter });
    } catch (error) {
      throw new FileRefused(`${this.name} is not a ZIP archive that can be read: ${messageOf(error)}`);
    }
  }
}

/** Files that the user chose, by path. */
export class FilesSource implements BundleSource {
  private readonly prefix: string;

  /** Throws FileRefused if there is no manifest among them. */
  constructor(
    readonly name: string,
    private readonly files: ReadonlyMap<string, Blob>,
  ) {
    this.prefix = folderOfManifest(files.keys(), name);
  }

  async size(file: string): Promise<number> {
    return this.get(file).size;
  }

  async read(file: string, { limit, report }: Reading): Promise<Uint8Array> {
    const blob = this.get(file);
    if (blob.size > limit) throw tooLarge(file, limit);
    try {
      const bytes = new Uint8Array(await blob.arrayBuffer());
      report?.(bytes.length);
      return bytes;
    } catch (error) {
      throw new FileRefused(`${file} cannot be read (${messageOf(error)}): choose the bundle again`);
    }
  }

  private get(file: string): Blob {
    const blob = this.files.get(this.prefix + file);
    if (!blob) throw missing(file, this.name);
    return blob;
  }
}

/** Download a file. Throws FileRefused. */
export async function download(
  url: URL,
  { limit, entry, fresh, signal, report }: Reading,
): Promise<Uint8Array> {
  const most = entry?.size ?? limit;
  try {
    const response = await fetch(url, {
      cache: entry && !fresh ? "default" : "no-cache",
      signal: signal ?? null,
    });
    if (!response.ok) {
      throw new FileRefused(`${url.href} cannot be read: the server answers ${response.status}`);
    }
    return await readAll(response, url, most, report);
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof FileRefused) throw error;
    throw new Unreachable(
      `${url.href} cannot be read: ${messageOf(error)}. Check the connection, and load it again`,
    );
  }
}

/** A server that does not answer, or stops in the middle. */
class Unreachable extends FileRefused {}

async function readAll(
  response: Response,
  url: URL,
  most: number,
  report?: (bytes: number) => void,
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
    length += part.value.length;
    if (length > most) {
      await reader?.cancel();
      // servers take .gz for a way to send another file
      if (url.pathname.endsWith(".gz") && response.headers.has("content-encoding")) throw unpacked(url);
      throw tooLarge(url.href, most);
    }
    parts.push(part.value);
    report?.(length);
  }
  return concatenated(parts);
}

/** Return the folder, with its slash, that has the manifest nearest to the top. */
function folderOfManifest(paths: Iterable<string>, name: string): string {
  const folders = [...paths]
    .filter((path) => path === MANIFEST_NAME || path.endsWith(`/${MANIFEST_NAME}`))
    .map((path) => path.slice(0, -MANIFEST_NAME.length));
  folders.sort((a, b) => a.split("/").length - b.split("/").length);
  if (folders[0] === undefined) {
    throw new FileRefused(
      `${name} has no ${MANIFEST_NAME}: a bundle is a folder that \`galip export\` wrote`,
    );
  }
  return folders[0];
}

function missing(file: string, name: string): FileRefused {
  return new FileRefused(`${name} has no file ${file}: ${REPAIR}`);
}

function unpacked(url: URL): FileRefused {
  return new FileRefused(
    `${url.href} is sent with the header Content-Encoding, so it arrives unpacked: let the server send files that ` +
      "end in .gz as they are, or put the bundle into a .zip file and load that",
  );
}

function tooLarge(file: string, limit: number): FileRefused {
  return new FileRefused(
    `${file} has more than ${limit} bytes, so it is another file than the manifest lists: ${REPAIR}`,
  );
}
