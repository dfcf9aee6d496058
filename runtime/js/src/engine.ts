/** A loaded bundle: what runs in a worker in browsers, and directly in Node. */

import { gunzipSync } from "fflate";
import type { Dimensions, Manifest } from "./bundle/manifest.js";
import { type Progress, readFiles, readManifest } from "./bundle/reading.js";
import type { BundleSource } from "./bundle/sources.js";
import { FileRefused, messageOf, ProviderUnavailable } from "./errors.js";
import { NOISE_DEFINITION } from "./noise.js";
import { toPixels } from "./picture.js";
import {
  candidates,
  choosePrecision,
  type Device,
  type OrtModule,
  type Platform,
} from "./runners/devices.js";
import { runGenerator, type SelfCheck } from "./runners/selfCheck.js";
import { Session, type SessionSpec } from "./runners/session.js";
import { type Sessions, startSessions } from "./runners/start.js";
import { padded, Tokenizer } from "./text/tokenizer.js";
import { VERSION } from "./version.js";

/** What `load` was asked for. */
export interface Wishes {
  readonly device: string;
  readonly precision: string;
  readonly threads?: number | undefined;
}

/** What is loaded and how it runs, fit for JSON. */
export interface Info {
  readonly bundle: string;
  readonly digest: string;
  readonly requested: Wishes;
  /** What computes the pictures. */
  readonly device: string;
  /** Why device `auto` did not take a better device. */
  readonly passedOver: readonly string[];
  /** What runs each graph. */
  readonly providers: { readonly textEncoder: string; readonly generator: string };
  readonly precision: { readonly textEncoder: string; readonly generator: string };
  /** All that the bundle has. */
  readonly precisions: readonly string[];
  readonly threads: number;
  /** Why there are not more threads; undefined where nothing prevents them. */
  readonly threadsReason: string | undefined;
  /** How far WebGPU's picture is from WebAssembly's; undefined on other devices. */
  readonly selfCheck: SelfCheck | undefined;
  readonly dimensions: Dimensions;
  readonly model: Readonly<Record<string, unknown>>;
  readonly noise: string;
  readonly source: { readonly name: string; readonly sha256: string };
  readonly versions: Readonly<Record<string, string>>;
}

/** A prompt's sentence vector. */
export interface Encoded {
  readonly sentence: Float32Array;
  /** The end of the prompt that has no effect, since the model reads no further; empty if it reads all. */
  readonly leftOut: string;
}

/** What `Model` asks of a loaded bundle, one caption or picture at a time. */
export interface Engine {
  readonly info: Info;
  encode(prompt: string): Promise<Encoded>;
  /** Return the generator's image (3, H, W) for rows of noise and of a sentence vector. */
  decode(noise: Float32Array, sentence: Float32Array): Promise<Float32Array>;
  /** Return the same in RGBA. */
  draw(noise: Float32Array, sentence: Float32Array): Promise<Uint8ClampedArray<ArrayBuffer>>;
  close(): Promise<void>;
}

const MAX_VOCABULARY_BYTES = 64 * 2 ** 20;
const CACHED_SENTENCES = 1024;

/** What is read of a bundle, and where it is to run. */
interface Loaded {
  readonly source: BundleSource;
  readonly wishes: Wishes;
  readonly platform: Platform;
  readonly manifest: Manifest;
  readonly precision: Info["precision"];
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly tokenizer: Tokenizer;
}

/**
 * Load a bundle. Nothing is parsed before it is verified.
 *
 * Throws FileRefused for a bundle that is not whole and as it was exported, ProviderUnavailable where the device
 * is not available, and UsageError for an unknown device or precision.
 */
export async function openEngine(
  source: BundleSource,
  wishes: Wishes,
  platform: Platform,
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<Engine> {
  const devices = candidates(platform, wishes.device);
  const manifest = await readManifest(source, signal);
  const precision = {
    textEncoder: choosePrecision(manifest, "text_encoder", wishes.precision, devices),
    generator: choosePrecision(manifest, "generator", wishes.precision, devices),
  };
  const graphs = Object.values(graphFiles(manifest, precision));
  const files = await readFiles(source, manifest, graphs, onProgress, signal);
  const tokenizer = readTokenizer(files.get(manifest.tokenizer.file)!, manifest);
  const loaded = { source, wishes, platform, manifest, precision, files, tokenizer };
  const passedOver: string[] = [];
  for (const device of devices) {
    try {
      const engine = await startOn(device, loaded, passedOver);
      signal?.throwIfAborted();
      return engine;
    } catch (error) {
      if (!(error instanceof ProviderUnavailable)) throw error;
      passedOver.push(error.message);
    }
  }
  throw new ProviderUnavailable(passedOver.join("\n  "));
}

function graphFiles(
  manifest: Manifest,
  precision: Info["precision"],
): { textEncoder: string; generator: string } {
  const { text_encoder: textEncoder, generator } = manifest.graphs;
  return {
    textEncoder: textEncoder.get(precision.textEncoder)!,
    generator: generator.get(precision.generator)!,
  };
}

/** Throws ProviderUnavailable where the device does not start. */
async function startOn(device: Device, loaded: Loaded, passedOver: readonly string[]): Promise<Engine> {
  const { source, wishes, platform, manifest, precision, files, tokenizer } = loaded;
  const threads = platform.threads(device, wishes.threads);
  const isNamed = wishes.device !== "auto";
  const ort = await platform.load(device, threads.count, isNamed);
  const open = async (spec: SessionSpec, on: Device): Promise<Session> => {
    const graph = files.get(spec.file)!;
    const provider = await platform.provider(on, graph);
    return Session.open(ort, graph, spec, { device: on, provider, threads: threads.count });
  };
  const names = graphFiles(manifest, precision);
  const sessions = await startSessions(open, names, manifest.dimensions, device, isNamed);
  const { textEncoder, generator, selfCheck } = sessions;
  const info: Info = {
    bundle: source.name,
    digest: manifest.digest,
    requested: wishes,
    device,
    passedOver,
    providers: { textEncoder: textEncoder.device, generator: generator.device },
    precision,
    precisions: [...manifest.graphs.generator.keys()].sort(),
    threads: threads.count,
    threadsReason: threads.reason,
    selfCheck,
    dimensions: manifest.dimensions,
    model: manifest.model,
    noise: NOISE_DEFINITION["name"]!,
    source: manifest.source,
    versions: { "galip-runtime": VERSION, onnxruntime: onnxruntimeVersion(ort) },
  };
  return new LocalEngine(info, tokenizer, sessions);
}

class LocalEngine implements Engine {
  private readonly sentences = new Map<string, Float32Array>();

  constructor(
    readonly info: Info,
    private readonly tokenizer: Tokenizer,
    private readonly sessions: Sessions,
  ) {}

  async encode(prompt: string): Promise<Encoded> {
    const ids = this.tokenizer.encode(prompt);
    const leftOut = ids.length === this.tokenizer.contextLength ? this.tokenizer.leftOut(prompt) : "";
    const key = ids.join();
    let sentence = this.sentences.get(key);
    this.sentences.delete(key); // what was used last comes last
    sentence ??= await this.sessions.textEncoder.run({ tokens: padded([ids], this.tokenizer.contextLength) });
    this.sentences.set(key, sentence);
    if (this.sentences.size > CACHED_SENTENCES) this.sentences.delete(this.sentences.keys().next().value!);
    return { sentence: sentence.slice(), leftOut };
  }

  decode(noise: Float32Array, sentence: Float32Array): Promise<Float32Array> {
    return runGenerator(this.sessions.generator, noise, sentence);
  }

  async draw(noise: Float32Array, sentence: Float32Array): Promise<Uint8ClampedArray<ArrayBuffer>> {
    return toPixels(await this.decode(noise, sentence));
  }

  async close(): Promise<void> {
    await this.sessions.textEncoder.close();
    await this.sessions.generator.close();
  }
}

function readTokenizer(data: Uint8Array, manifest: Manifest): Tokenizer {
  const tokenizer = new Tokenizer(unpack(data), manifest.dimensions.contextLength);
  if (tokenizer.merges !== manifest.tokenizer.merges) {
    throw new FileRefused(
      `${manifest.tokenizer.file} has ${tokenizer.merges} merges and the manifest says ${manifest.tokenizer.merges}: ` +
        "export the bundle again",
    );
  }
  return tokenizer;
}

function unpack(data: Uint8Array): string {
  try {
    // gzip ends with the size of the text, which fflate does not exceed
    const size = new DataView(data.buffer, data.byteOffset, data.length).getUint32(data.length - 4, true);
    if (size > MAX_VOCABULARY_BYTES) throw new RangeError(`it has more than ${MAX_VOCABULARY_BYTES} bytes`);
    return new TextDecoder("utf-8", { fatal: true }).decode(gunzipSync(data));
  } catch (error) {
    throw new FileRefused(`the tokenizer's vocabulary is not gzipped UTF-8 text: ${messageOf(error)}`);
  }
}

function onnxruntimeVersion(ort: OrtModule): string {
  const { web, node, common } = ort.env.versions;
  return web ?? node ?? common;
}
