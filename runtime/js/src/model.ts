/** `Model`: what `load` returns, the same in browsers and in Node. */

import type { Dimensions } from "./bundle/manifest.js";
import type { Engine, Info } from "./engine.js";
import { shortly, UsageError } from "./errors.js";
import {
  checkCorners,
  checkSteps,
  type Interpolate,
  interpolateCorners,
  lerp,
  slerp,
} from "./interpolation.js";
import { asSeeds, noise, type Seed, seedSeries } from "./noise.js";
import { type Picture, pictureMetadata } from "./picture.js";
import { asPrompts } from "./text/prompts.js";

/** What every call that computes takes. */
export interface CallOptions {
  /** Stops the call before its next picture, with the signal's reason; what is begun is finished and returned. */
  readonly signal?: AbortSignal | undefined;
}

/** What calls that draw several pictures take, too. */
export interface DrawOptions extends CallOptions {
  /** Called before the first picture and after each. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What to draw. */
export interface GenerateOptions extends DrawOptions {
  readonly prompts: string | readonly string[];
  /** One for each picture, from 0 to 2^64 − 1; without them each prompt gets a random one. */
  readonly seeds?: Seed | readonly Seed[] | undefined;
  /** Cuts the noise at ± this: lower gives plainer pictures and less variety. */
  readonly truncation?: number | undefined;
}

/** Between what to draw. */
export interface InterpolateOptions extends GenerateOptions {
  /** Pictures along a side, at least 2; 8 if not given. */
  readonly steps?: number | undefined;
  /** Two prompts from left to right and two seeds from top to bottom. */
  readonly square?: boolean | undefined;
}

/** Called with what a user should know, such as that a prompt is cut. */
export type Warn = (message: string) => void;

/** Makes a picture of pixels in RGBA. */
export type MakePicture<P> = (data: Uint8ClampedArray<ArrayBuffer>, width: number, height: number) => P;

/**
 * Generates pictures from prompts: each an `ImageData` in browsers, a plain `Picture` in Node.
 *
 * Calls wait for one another, picture by picture.
 */
export class Model<P extends Picture = Picture> {
  private last: Promise<unknown> = Promise.resolve();
  private closed: Promise<void> | undefined;

  /** Hold what `load` has loaded. */
  constructor(
    private readonly engine: Engine,
    private readonly makePicture: MakePicture<P>,
    private readonly warn: Warn,
  ) {}

  /** Sizes of the model. */
  get dimensions(): Dimensions {
    return this.engine.info.dimensions;
  }

  /** Return what is loaded and how it runs, fit for JSON. */
  info(): Info {
    return structuredClone(this.engine.info);
  }

  /**
   * Return sentence vectors, one a prompt, not normalised. Repeated captions come from a cache.
   *
   * Warns of a prompt that is cut. Throws UsageError for no prompt, something other than text, and a prompt of
   * more than 100,000 characters.
   */
  async encodeText(
    prompts: string | readonly string[],
    { signal }: CallOptions = {},
  ): Promise<Float32Array[]> {
    const rows: Float32Array[] = [];
    for (const prompt of asPrompts(prompts)) {
      const { sentence, leftOut } = await this.turn(signal, () => this.engine.encode(prompt));
      if (leftOut) {
        const ids = this.dimensions.contextLength - 2;
        this.warn(`the prompt has more than ${ids} tokens and is cut: ${shortly(leftOut)} has no effect`);
      }
      rows.push(sentence);
    }
    return rows;
  }

  /** Return noise, a row a seed: it depends on the seed alone; `truncation` cuts it. Throws UsageError. */
  noise(
    seeds: Seed | readonly Seed[],
    { truncation }: { truncation?: number | undefined } = {},
  ): Float32Array[] {
    return noise(seeds, this.dimensions.noiseDim, truncation);
  }

  /**
   * Return the generator's images: each (3, H, W), RGB, nominally in [-1, 1], not clamped.
   *
   * `noise` and `sentence`: as many rows of both. Throws UsageError for rows of another length or with numbers
   * that are not finite.
   */
  async decode(
    noise: readonly ArrayLike<number>[],
    sentence: readonly ArrayLike<number>[],
    options: DrawOptions = {},
  ): Promise<Float32Array[]> {
    return this.each(noise, sentence, options, (z, e) => this.engine.decode(z, e));
  }

  /** Return `decode`'s images as pictures in RGBA: [-1, 1] becomes 0 … 255, rounded. */
  async decodePictures(
    noise: readonly ArrayLike<number>[],
    sentence: readonly ArrayLike<number>[],
    options: DrawOptions = {},
  ): Promise<P[]> {
    const { imageWidth, imageHeight } = this.dimensions;
    const pixels = await this.each(noise, sentence, options, (z, e) => this.engine.draw(z, e));
    return pixels.map((data) => this.makePicture(data, imageWidth, imageHeight));
  }

  /**
   * Return pictures.
   *
   * One prompt goes with any number of seeds, one seed with any number of prompts; otherwise give as many of
   * both. Throws UsageError for arguments that do not fit.
   */
  async generate({ prompts, seeds, truncation, ...options }: GenerateOptions): Promise<P[]> {
    const texts = asPrompts(prompts);
    const numbers = seeds === undefined ? seedSeries(undefined, texts.length) : asSeeds(seeds);
    const count = Math.max(texts.length, numbers.length);
    if (![1, count].includes(texts.length) || ![1, count].includes(numbers.length)) {
      throw new UsageError(
        `${texts.length} prompts and ${numbers.length} seeds do not go together: give one of either, or as many of both`,
      );
    }
    const rows = this.noise(numbers, { truncation });
    const sentences = await this.encodeText(texts, options);
    return this.decodePictures(repeated(rows, count), repeated(sentences, count), options);
  }

  /**
   * Return pictures between prompts, seeds or both: sentence vectors on a line, noise on a great circle.
   *
   * A strip of `steps` pictures has two prompts, two seeds, or two of each. A square, row by row, has four of
   * either in its corners (top left, top right, bottom left, bottom right), or with `square` two of each.
   * Throws UsageError for arguments that do not fit.
   */
  async interpolate({
    prompts,
    seeds,
    truncation,
    steps = 8,
    square = false,
    ...options
  }: InterpolateOptions): Promise<P[]> {
    const texts = asPrompts(prompts);
    const numbers = seeds === undefined ? seedSeries() : asSeeds(seeds);
    checkCorners(texts.length, numbers.length, square);
    const isSquare = square || texts.length === 4 || numbers.length === 4;
    const last = checkSteps(steps, isSquare) - 1;
    const rows = this.noise(numbers, { truncation });
    const sentences = await this.encodeText(texts, options);
    const points: [number, number][] = [];
    for (let y = 0; y <= (isSquare ? last : 0); y++) {
      for (let x = 0; x <= last; x++) points.push([x / last, y / last]);
    }
    const between = (corners: Float32Array[], method: Interpolate, turned = false): Float32Array[] =>
      points.map(([x, y]) => interpolateCorners(corners, turned ? y : x, y, method));
    return this.decodePictures(between(rows, slerp, square), between(sentences, lerp), options);
  }

  /** Return texts that say how pictures were generated, for `encodePng`. */
  metadata(
    prompts: string | readonly string[],
    seeds: Seed | readonly Seed[],
    truncation?: number,
  ): Record<string, string> {
    return pictureMetadata(asPrompts(prompts), asSeeds(seeds), truncation, this.engine.info.digest);
  }

  /** Free the memory, once the pictures that wait are drawn. New calls, and further pictures of a call, are errors. */
  dispose(): Promise<void> {
    this.closed ??= this.last.then(() => this.engine.close());
    return this.closed;
  }

  private async each<T>(
    noise: readonly ArrayLike<number>[],
    sentence: readonly ArrayLike<number>[],
    { signal, onProgress }: DrawOptions,
    draw: (noise: Float32Array, sentence: Float32Array) => Promise<T>,
  ): Promise<T[]> {
    const z = checkRows(noise, "noise", this.dimensions.noiseDim);
    const e = checkRows(sentence, "sentence", this.dimensions.sentenceDim);
    if (z.length !== e.length) {
      throw new UsageError(
        `noise has ${z.length} rows and sentence ${e.length}; each picture takes one of both`,
      );
    }
    const results: T[] = [];
    onProgress?.(0, z.length);
    for (const [index, row] of z.entries()) {
      results.push(await this.turn(signal, () => draw(row, e[index]!)));
      onProgress?.(index + 1, z.length);
    }
    return results;
  }

  /** Run `job` once all earlier ones have ended. A job whose signal is aborted by then never starts. */
  private async turn<T>(signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    if (this.closed) throw new UsageError("the model is closed: load the bundle again");
    const result = this.last.then(() => {
      signal?.throwIfAborted();
      return job();
    });
    this.last = result.catch(() => undefined);
    return result;
  }
}

function repeated<T>(rows: readonly T[], count: number): T[] {
  return rows.length === count ? [...rows] : Array.from({ length: count }, () => rows[0]!);
}

function checkRows(rows: unknown, name: string, width: number): Float32Array[] {
  if (!Array.isArray(rows) || !rows.length) {
    throw new UsageError(`${name} is a list of at least one row of ${width} numbers, not ${shortly(rows)}`);
  }
  return rows.map((values: ArrayLike<number>) => {
    const row = Float32Array.from(values ?? []);
    if (row.length !== width || !row.every(Number.isFinite)) {
      throw new UsageError(
        `a row of ${name} has ${row.length} numbers; it must have ${width}, all finite in float32`,
      );
    }
    return row;
  });
}
