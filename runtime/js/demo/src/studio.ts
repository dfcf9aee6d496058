/** A loaded model that draws recipes. */

import { type Info, lerp, type Model, slerp } from "galip-runtime";
import type { Known } from "./known.js";
import { type Recipe, roundTrip, sources } from "./mixing.js";
import type { State } from "./state.js";
import { Times } from "./times.js";

const FRAMES = 42;
const MOST_SENTENCES = 500;

/** Whatever draws recipes: a model in this tab, or a service. */
export interface Artist {
  readonly known: Known;
  /** The SHA-256 of the model's checkpoint. */
  readonly source: string;
  /** How pictures are drawn, in words, and why not faster. */
  readonly how: { readonly text: string; readonly title: string };
  /** Return the recipe nearest to this one that can be drawn. */
  nearest(recipe: Recipe): Recipe;
  /** Draw a picture of a recipe that `nearest` returned. */
  paint(recipe: Recipe): Promise<ImageData>;
  /** Return what the visitor should know of the recipe's prompts; nothing for most. */
  warningOf(recipe: Recipe): string;
  /** Return the states of an animation that starts and ends at this one. */
  trip(state: State): State[];
  /** Return the texts of a picture's file. */
  metadata(recipe: Recipe): Record<string, string>;
  dispose(): Promise<void>;
}

export class Studio implements Artist {
  private readonly info: Info;
  /** The last warning of the library: a prompt that is cut. */
  warning = "";
  private readonly sentences = new Map<string, Float32Array>();
  private readonly warnings = new Map<string, string>();
  private readonly times = new Times();

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
    this.times.add(performance.now() - started);
    return picture as ImageData;
  }

  /** Return what the visitor should know of these prompts; nothing for most. */
  warningOf({ parts }: Recipe): string {
    return parts.map(({ prompt }) => this.warnings.get(prompt) ?? "").find(Boolean) ?? "";
  }

  get source(): string {
    return this.info.source.sha256;
  }

  /** Device, precision, and the median of the last pictures' times. */
  get how(): { text: string; title: string } {
    const { device, threads, threadsReason, precision } = this.info;
    const name = { webgpu: "WebGPU", wasm: "WebAssembly", cpu: "CPU" }[device];
    const why = threadsReason === undefined ? "" : " (no SharedArrayBuffer here)";
    const text = `${name}, ${threads} thread${threads === 1 ? "" : "s"}${why} · ${precision.generator}`;
    return { text: `${text} · ${this.times.median.toFixed(0)} ms a picture`, title: threadsReason ?? "" };
  }

  /** Return the recipe: all can be drawn. */
  nearest(recipe: Recipe): Recipe {
    return recipe;
  }

  trip(state: State): State[] {
    return roundTrip(state, this.known, FRAMES);
  }

  /** Return the texts of a picture's file. */
  metadata(recipe: Recipe): Record<string, string> {
    const { prompts, seeds, mix } = sources(recipe);
    return { ...this.model.metadata(prompts, seeds, recipe.truncation), ...mix };
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
