/** Everything that a visitor can set, and its form in the address. */

/** Across and down. */
export type Point = readonly [number, number];

export interface State {
  readonly mode: "styles" | "corners";
  readonly prompt: string;
  /** On the style pad: its centre is (0, 0), the styles are at distance 1. */
  readonly style: Point;
  /** Clockwise from the top left. */
  readonly corners: readonly string[];
  /** In the square between them: from (0, 0), top left, to (1, 1). */
  readonly corner: Point;
  readonly seeds: readonly [string, string];
  /** From the first seed, 0, to the second, 1. */
  readonly walk: number;
  /** Undefined for none. */
  readonly truncation: number | undefined;
}

export const START: State = {
  mode: "styles",
  prompt: "an automobile",
  style: [0.22, -0.62],
  corners: ["a red apple, flat style", "a red heart, flat style", "fire, noto style", "a star, 3D style"],
  corner: [0.3, 0.25],
  seeds: ["7", "8"],
  walk: 0,
  truncation: undefined,
};

/** Where the truncation's slider ends: nothing is cut there. */
export const NO_TRUNCATION = 3;

const LONGEST = 2000; // characters of a prompt in a link

/** Write the state as the part of an address after `#`. Prompts are cut to what an address can hold. */
export function toHash(state: State): string {
  const fields = new URLSearchParams();
  if (state.mode === "corners") {
    fields.set("mode", state.mode);
    for (const prompt of state.corners) fields.append("corner", prompt.slice(0, LONGEST));
  } else fields.set("prompt", state.prompt.slice(0, LONGEST));
  fields.set("at", (state.mode === "corners" ? state.corner : state.style).map(short).join());
  fields.set("seeds", state.seeds.join());
  if (state.walk) fields.set("walk", short(state.walk));
  if (state.truncation !== undefined) fields.set("truncation", short(state.truncation));
  return `#${fields}`;
}

/** Read `toHash`'s text; what is missing or makes no sense is as in `base`. */
export function fromHash(hash: string, base: State): State {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const mode = fields.get("mode") === "corners" ? "corners" : fields.size ? "styles" : base.mode;
  const corners = fields.getAll("corner");
  const seeds = fields.get("seeds")?.split(",") ?? [];
  const at = fields.get("at")?.split(",").map(Number) ?? [];
  const point =
    at.length === 2 && at.every((value) => Math.abs(value) <= 1) ? (at as [number, number]) : null;
  return {
    mode,
    prompt: fields.get("prompt") ?? base.prompt,
    style: (mode === "styles" && point) || base.style,
    corners: corners.length === 4 ? corners : base.corners,
    corner: (mode === "corners" && point?.every((value) => value >= 0) && point) || base.corner,
    seeds: seeds.length === 2 ? (seeds as [string, string]) : base.seeds,
    walk: within(fields.get("walk"), 0, 1) ?? (fields.size ? 0 : base.walk),
    truncation: within(fields.get("truncation"), 0.1, NO_TRUNCATION - 0.01),
  };
}

function within(text: string | null, least: number, most: number): number | undefined {
  const value = Number(text);
  return text !== null && value >= least && value <= most ? value : undefined;
}

function short(value: number): string {
  return String(Math.round(value * 1000) / 1000);
}
