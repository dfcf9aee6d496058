/** The manifest of a bundle: checked field by field, and by the digest that it has of itself. */

import { FileRefused, messageOf, ProviderUnavailable, shortly } from "../errors.js";
import { NOISE_DEFINITION } from "../noise.js";

export const MANIFEST_NAME = "manifest.json";
export const MAX_MANIFEST_BYTES = 2 ** 20;
/** Both graphs of a bundle. */
export const GRAPHS = ["text_encoder", "generator"] as const;
export type Graph = (typeof GRAPHS)[number];

const FORMAT = "galip-bundle";
const FORMAT_VERSION = 1;
const MAX_FILE_BYTES = 2 ** 33;
const MAX_DIMENSION = 2 ** 16;
const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.+-]*(\/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$/;
const DIGEST_LINE = /^ {2}"digest": "([0-9a-f]{64})",\n/m;
/** What to do about a broken bundle. */
export const REPAIR = "copy the bundle again from where it came, or export it again";

/** Sizes of a model. */
export interface Dimensions {
  /** pixels */
  readonly imageHeight: number;
  /** pixels */
  readonly imageWidth: number;
  /** numbers in a row of noise */
  readonly noiseDim: number;
  /** numbers in a sentence vector */
  readonly sentenceDim: number;
  /** the most ids in a row of tokens */
  readonly contextLength: number;
}

/** What a manifest lists of a file. */
export interface FileEntry {
  readonly sha256: string;
  readonly size: number;
}

export interface Manifest {
  readonly digest: string;
  readonly dimensions: Dimensions;
  readonly files: ReadonlyMap<string, FileEntry>;
  /** Graph → precision → name of the file. */
  readonly graphs: Readonly<Record<Graph, ReadonlyMap<string, string>>>;
  readonly tokenizer: { readonly file: string; readonly merges: number };
  readonly source: { readonly name: string; readonly sha256: string };
  readonly versions: Readonly<Record<string, unknown>>;
  readonly model: Readonly<Record<string, unknown>>;
}

/** Read the bytes of a `manifest.json`. Throws FileRefused, also if any byte was changed. */
export async function parseManifest(bytes: Uint8Array): Promise<Manifest> {
  const document = parseJson(bytes);
  if (!isObject(document) || document["format"] !== FORMAT) {
    throw new FileRefused(`it is not a bundle's manifest, which has "format": "${FORMAT}"`);
  }
  if (document["format_version"] !== FORMAT_VERSION) {
    throw new FileRefused(
      `the bundle's format version is ${shortly(document["format_version"])}, and this galip-runtime reads version ` +
        `${FORMAT_VERSION}: install the galip-runtime that belongs to the bundle, or export it again`,
    );
  }
  const digest = await checkDigest(bytes);
  const dimensions = readDimensions(document["dimensions"]);
  const files = readFiles(document["files"]);
  checkNoise(document["noise"]);
  const source = object(document["source"], "source");
  return {
    digest,
    dimensions,
    files,
    graphs: readGraphs(document["graphs"], dimensions, files),
    tokenizer: readTokenizer(document["tokenizer"], dimensions, files),
    source: { name: text(source["name"], "source.name"), sha256: text(source["sha256"], "source.sha256") },
    versions: object(document["versions"], "versions"),
    model: object(document["model"], "model"),
  };
}

/** Throw FileRefused unless `bytes` are the listed file. */
export async function checkFile(name: string, bytes: Uint8Array, entry: FileEntry): Promise<void> {
  checkSize(name, bytes.length, entry);
  const actual = await sha256(bytes);
  if (actual !== entry.sha256) throw altered(name, "sha256", actual, entry.sha256);
}

/** Throw FileRefused unless a file has the listed size. */
export function checkSize(name: string, size: number, entry: FileEntry): void {
  if (size !== entry.size) throw altered(name, "size", size, entry.size);
}

/** Return the SHA-256 in hexadecimal digits. Throws ProviderUnavailable where there is no WebCrypto. */
export async function sha256(bytes: Uint8Array): Promise<string> {
  if (!globalThis.crypto?.subtle) {
    throw new ProviderUnavailable(
      "this page cannot compute hashes, which browsers allow on https and localhost alone: open it from there",
    );
  }
  const hash = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function altered(
  name: string,
  quantity: string,
  actual: number | string,
  expected: number | string,
): FileRefused {
  return new FileRefused(
    `${name} is not the file that the manifest lists: its ${quantity} is ${actual} instead of ${expected}. ` +
      `It was cut short or altered; ${REPAIR}`,
  );
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(decodeUtf8(bytes));
  } catch (error) {
    throw new FileRefused(`it is not valid JSON (${messageOf(error)})`);
  }
}

function decodeUtf8(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

/** Return the digest: the sha256 of the manifest without the digest's own line. */
async function checkDigest(bytes: Uint8Array): Promise<string> {
  const document = decodeUtf8(bytes);
  const [line, digest] = DIGEST_LINE.exec(document) ?? [];
  if (line === undefined || digest === undefined) {
    throw new FileRefused(
      `it has no digest: it was altered, or exported by a version of galip that wrote none; ${REPAIR}`,
    );
  }
  const rest = document.replace(line, "");
  if ((await sha256(new TextEncoder().encode(rest))) !== digest) {
    throw new FileRefused(`its digest does not match its content: it was cut short or altered; ${REPAIR}`);
  }
  return digest;
}

function readDimensions(value: unknown): Dimensions {
  const fields = object(value, "dimensions");
  const size = (name: string, least = 1): number =>
    whole(fields[name], `dimensions.${name}`, least, MAX_DIMENSION);
  return {
    imageHeight: size("image_height"),
    imageWidth: size("image_width"),
    noiseDim: size("noise_dim"),
    sentenceDim: size("sentence_dim"),
    contextLength: size("context_length", 3), // start, an id, end
  };
}

function readFiles(value: unknown): Map<string, FileEntry> {
  const files = new Map<string, FileEntry>();
  for (const [name, item] of Object.entries(object(value, "files"))) {
    if (name.length > 200 || !NAME.test(name) || name === MANIFEST_NAME) {
      throw new FileRefused(
        `${shortly(name)} is not a valid name for a bundle's file: it must be a relative path of letters, digits, ` +
          "'.', '_', '-' and '+', with '/' between folders, without '..' or hidden parts",
      );
    }
    const entry = object(item, `files.${name}`);
    const hash = text(entry["sha256"], `files.${name}.sha256`);
    if (!/^[0-9a-f]{64}$/.test(hash)) {
      throw new FileRefused(`${shortly(hash)} is not a sha256 of 64 lower-case hexadecimal digits`);
    }
    files.set(name, { sha256: hash, size: whole(entry["size"], `files.${name}.size`, 0, MAX_FILE_BYTES) });
  }
  return files;
}

function checkNoise(value: unknown): void {
  const noise = object(value, "noise");
  const names = Object.keys(NOISE_DEFINITION);
  if (
    Object.keys(noise).length === names.length &&
    names.every((name) => noise[name] === NOISE_DEFINITION[name])
  )
    return;
  throw new FileRefused(
    `the bundle's noise is ${shortly(noise["name"])}, whose definition this galip-runtime does not implement: ` +
      "install the galip-runtime that belongs to the bundle, or export it again",
  );
}

function readGraphs(value: unknown, dimensions: Dimensions, files: Manifest["files"]): Manifest["graphs"] {
  const fields = object(value, "graphs");
  if (Object.keys(fields).sort().join() !== [...GRAPHS].sort().join()) {
    throw new FileRefused(
      `graphs are ${shortly(Object.keys(fields))}; they must be exactly ${GRAPHS.join(", ")}`,
    );
  }
  const read = (graph: Graph): Map<string, string> => {
    const precisions = Object.entries(object(fields[graph], `graphs.${graph}`));
    if (!precisions.length) throw new FileRefused(`graphs.${graph} has no precision`);
    return new Map(
      precisions.map(([precision, spec]) => {
        if (!/^[a-z][a-z0-9_]*$/.test(precision)) {
          throw new FileRefused(`graphs.${graph}: ${shortly(precision)} is not the name of a precision`);
        }
        return [
          precision,
          readGraph(spec, `graphs.${graph}.${precision}`, contract(graph, dimensions), files),
        ];
      }),
    );
  };
  return { text_encoder: read("text_encoder"), generator: read("generator") };
}

function readGraph(value: unknown, where: string, expected: unknown, files: Manifest["files"]): string {
  const spec = object(value, where);
  const tensors = [spec["inputs"], spec["outputs"]].map((side) =>
    list(side, where).map((item) => tensor(item, where)),
  );
  if (JSON.stringify(tensors) !== JSON.stringify(expected)) {
    throw new FileRefused(
      `${where} has the inputs and outputs ${JSON.stringify(tensors).slice(0, 400)}; they must be ${JSON.stringify(expected)}`,
    );
  }
  whole(spec["opset"], `${where}.opset`, 1, MAX_DIMENSION);
  return listed(spec["file"], `${where}.file`, files);
}

/** Return the inputs and outputs that a graph must have: name, type and shape of each. */
function contract(graph: Graph, { noiseDim, sentenceDim, imageHeight, imageWidth }: Dimensions): unknown {
  const sentence = ["sentence", "float32", ["N", sentenceDim]];
  if (graph === "text_encoder") return [[["tokens", "int64", ["N", "L"]]], [sentence]];
  return [
    [["noise", "float32", ["N", noiseDim]], sentence],
    [["image", "float32", ["N", 3, imageHeight, imageWidth]]],
  ];
}

function tensor(value: unknown, where: string): unknown {
  const fields = object(value, where);
  return [fields["name"], fields["dtype"], fields["shape"]];
}

function readTokenizer(
  value: unknown,
  dimensions: Dimensions,
  files: Manifest["files"],
): Manifest["tokenizer"] {
  const fields = object(value, "tokenizer");
  if (fields["context_length"] !== dimensions.contextLength) {
    throw new FileRefused("tokenizer.context_length and dimensions.context_length differ");
  }
  return {
    file: listed(fields["file"], "tokenizer.file", files),
    merges: whole(fields["merges"], "tokenizer.merges", 0, 2 ** 24),
  };
}

function listed(value: unknown, where: string, files: Manifest["files"]): string {
  const name = text(value, where);
  if (!files.has(name))
    throw new FileRefused(`${where} is ${shortly(name)}, which is not among the listed files`);
  return name;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(value: unknown, where: string): Record<string, unknown> {
  if (!isObject(value)) throw unexpected(value, where, "an object");
  return value;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw unexpected(value, where, "a list");
  return value;
}

function text(value: unknown, where: string): string {
  if (typeof value !== "string") throw unexpected(value, where, "text");
  return value;
}

function whole(value: unknown, where: string, least: number, most: number): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
  throw unexpected(value, where, `a whole number from ${least} to ${most}`);
}

function unexpected(value: unknown, where: string, expected: string): FileRefused {
  return new FileRefused(
    `${where} is ${value === undefined ? "missing" : shortly(value)}; it must be ${expected}`,
  );
}
