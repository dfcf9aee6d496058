/** A service that draws recipes. */

import type { Known } from "./known.js";
import { type Recipe, sources } from "./mixing.js";
import { type Plan, plan, shortTrip } from "./plan.js";
import { ask, type ServedModel } from "./service.js";
import type { State } from "./state.js";
import type { Artist } from "./studio.js";
import { Times } from "./times.js";

const MOST_ANSWERS = 60;

export class ServiceStudio implements Artist {
  private readonly times = new Times();
  /** Pictures by request, those asked for last at the end. */
  private readonly answers = new Map<string, Promise<ImageData[]>>();

  /** `most`: pictures in one request. */
  constructor(
    private readonly model: ServedModel,
    private readonly key: string,
    readonly known: Known,
    readonly source: string,
    private readonly most: number,
  ) {}

  /** Device, precision, and the median of the last answers' times. */
  get how(): { text: string; title: string } {
    const { id, size, device, precision } = this.model;
    const text = `Server, ${device} · ${precision} · ${this.times.median.toFixed(0)} ms an answer`;
    return { text, title: `${id}, ${size.replace("x", "×")} pixels` };
  }

  /** Return the recipe nearest to this one that the service draws. */
  nearest(recipe: Recipe): Recipe {
    return plan(recipe, this.most).recipe;
  }

  /** Return a picture. Throws ServiceError. */
  async paint(recipe: Recipe): Promise<ImageData> {
    const wish = plan(recipe, this.most);
    const pictures = await this.answer(wish);
    return pictures[wish.index]!;
  }

  trip(state: State): State[] {
    return shortTrip(state);
  }

  /** Return nothing: the service says nothing of prompts that it draws. */
  warningOf(): string {
    return "";
  }

  /** Return the texts of a picture's file, as the service writes them. */
  metadata(recipe: Recipe): Record<string, string> {
    const { prompts, seeds, mix } = sources(recipe);
    const texts = {
      prompt: prompts.join("\n"),
      seed: seeds.join(", "),
      truncation: recipe.truncation === undefined ? "" : String(recipe.truncation),
      bundle: this.model.digest ?? "",
      ...mix,
    };
    return Object.fromEntries(Object.entries(texts).filter(([, text]) => text));
  }

  async dispose(): Promise<void> {
    this.answers.clear();
  }

  private answer(wish: Plan): Promise<ImageData[]> {
    const { prompts, seeds, steps, isSquare, recipe } = wish;
    const key = JSON.stringify([prompts, seeds, steps, isSquare, recipe.truncation]);
    const pictures = this.answers.get(key) ?? this.request(wish);
    this.answers.delete(key);
    this.answers.set(key, pictures);
    pictures.catch(() => this.answers.delete(key)); // it is asked for again
    if (this.answers.size > MOST_ANSWERS) this.answers.delete(this.answers.keys().next().value!);
    return pictures;
  }

  private async request({
    prompts,
    seeds,
    steps,
    isSquare,
    columns,
    rows,
    recipe,
  }: Plan): Promise<ImageData[]> {
    const { truncation } = recipe;
    const started = performance.now();
    let file: Blob;
    if (steps === 1) {
      const body = { prompt: prompts[0], seeds, truncation };
      const response = await ask("v1/images/generations", this.key, body);
      const { data } = (await response.json()) as { data: { b64_json: string }[] };
      const bytes = Uint8Array.from(atob(data[0]!.b64_json), (letter) => letter.charCodeAt(0));
      file = new Blob([bytes], { type: "image/png" });
    } else {
      const sheet = { output_format: "sheet", columns, gap: 0 };
      const body = { prompts, seeds, steps, square: isSquare, truncation, ...sheet };
      file = await (await ask("v1/interpolations", this.key, body)).blob();
    }
    const pictures = await cut(file, columns, rows);
    this.times.add(performance.now() - started);
    return pictures;
  }
}

/** Return the pictures of a sheet, row by row. */
async function cut(file: Blob, columns: number, rows: number): Promise<ImageData[]> {
  const sheet = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const [width, height] = [sheet.width / columns, sheet.height / rows];
  const context = new OffscreenCanvas(sheet.width, sheet.height).getContext("2d", {
    willReadFrequently: true,
  })!;
  context.drawImage(sheet, 0, 0);
  sheet.close();
  return Array.from({ length: columns * rows }, (_, i) =>
    context.getImageData((i % columns) * width, Math.floor(i / columns) * height, width, height),
  );
}
