/** A loaded model that draws recipes. */

import { encodePng, type Info, lerp, type Model, slerp } from "galip-runtime";
import type { Known } from "./known.js";
import { describe, type Recipe } from "./mixing.js";

const MOST_SENTENCES = 500;
const MOST_TIMES = 15;

export class Studio {
  readonly info: Info;
  /** The last warning of the library: a prompt that is cut. */
  warning = "";
  private readonly sentences = new Map<string, Float32Array>();
  private readonly warnings = new Map<string, string>();
  private readonly times: number[] = [];

  constructor(
    private readonly model: Model,
    readonly known: Known,
  ) {
    this.info = model.info();
  }

  /** Draw a picture. Throws what the library throws. */
  async paint(recipe: Recipe): Promise<ImageData> {
    const { seeds, walk, truncation } = recipe;
    const [first, second] = this.model.noise(seeds, { truncation });
    const noise = Float32Array.from(slerp(first!, second!, walk));
    const sentence = await this.mixed(recipe);
    const started = performance.now();
    const [picture] = await this.model.decodePictures([noise], [sentence]);
    this.times.push(performance.now() - started);
    if (this.times.length > MOST_TIMES) this.times.shift();
    return picture as ImageData;
  }

  /** Return what the visitor should know of these prompts; nothing for most. */
  warningOf({ parts }: Recipe): string {
    return parts.map(({ prompt }) => this.warnings.get(prompt) ?? "").find(Boolean) ?? "";
  }

  /** The median of the last pictures' times in ms. */
  get milliseconds(): number {
    const sorted = [...this.times].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? 0;
  }

  /** Return a picture as a PNG file that says how it was drawn. */
  png(picture: ImageData, recipe: Recipe): Uint8Array<ArrayBuffer> {
    return encodePng(picture, this.metadata(recipe));
  }

  /** Return the texts of a picture's file. */
  metadata(recipe: Recipe): Record<string, string> {
    const { parts, seeds, walk, truncation } = recipe;
    const used = walk === 0 ? [seeds[0]] : walk === 1 ? [seeds[1]] : [...seeds];
    const prompts = parts.map(({ prompt }) => prompt);
    const mixed = parts.length > 1 || used.length > 1;
    return {
      ...this.model.metadata(prompts, used, truncation),
      ...(mixed ? { mix: JSON.stringify({ weights: parts.map(({ weight }) => weight), walk }) } : {}),
      description: describe(recipe),
    };
  }

  dispose(): Promise<void> {
    return this.model.dispose();
  }

  /** Mix the prompts' sentence vectors, one after the other, so that each has its weight in the end. */
  private async mixed({ parts }: Recipe): Promise<Float32Array> {
    let mix: Float32Array | Float64Array | undefined;
    let sum = 0;
    for (const { prompt, weight } of parts) {
      const sentence = await this.sentence(prompt);
      sum += weight;
      mix = mix ? lerp(mix, sentence, weight / sum) : sentence;
    }
    return Float32Array.from(mix!);
  }

  private async sentence(prompt: string): Promise<Float32Array> {
    let sentence = this.sentences.get(prompt);
    if (!sentence) {
      this.warning = "";
      [sentence] = (await this.model.encodeText(prompt)) as [Float32Array];
      if (this.sentences.size >= MOST_SENTENCES) this.sentences.clear();
      this.warnings.set(prompt, this.warning);
      this.sentences.set(prompt, sentence);
    }
    return sentence;
  }
}
