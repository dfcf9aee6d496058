/** From a state to what is drawn: prompts with weights, and noise between two seeds. */

import { type Known, splitPrompt } from "./known.js";
import type { Point, State } from "./state.js";

/** What a picture is drawn from: the mean of the prompts' sentence vectors, and noise between two seeds. */
export interface Recipe {
  readonly parts: readonly { readonly prompt: string; readonly weight: number }[];
  readonly seeds: readonly [string, string];
  readonly walk: number;
  readonly truncation: number | undefined;
  /** Where the parts come from, if it is a square: its prompts, clockwise from the top left, and the point. */
  readonly square?: { readonly prompts: readonly string[]; readonly at: Point } | undefined;
}

/** The corners of the square between four prompts, clockwise from the top left. */
export const SQUARE: readonly Point[] = [
  [0, 0],
  [1, 0],
  [1, 1],
  [0, 1],
];

const LEAST = 0.002; // a weight that nobody sees
const MOST_NAMED = 3;

/** Return the corners of a regular polygon around (0, 0) at distance 1, from the top on, clockwise. */
export function polygon(count: number): Point[] {
  return Array.from({ length: count }, (_, i) => {
    const angle = (2 * Math.PI * i) / count - Math.PI / 2;
    return [Math.cos(angle), Math.sin(angle)];
  });
}

/** Return where the handle is on the style pad: a style that the prompt names counts, otherwise the point. */
export function stylePoint(state: State, known: Known): Point {
  const { style } = splitPrompt(state.prompt, known);
  return polygon(known.styles.length)[style] ?? state.style;
}

/** Return what a state draws. */
export function recipeOf(state: State, known: Known): Recipe {
  const { mode, corners, corner, seeds, walk, truncation } = state;
  const parts = mode === "corners" ? squareParts(corners, corner) : styleParts(state, known);
  const square = mode === "corners" ? { prompts: corners, at: corner } : undefined;
  return { parts: parts.filter(({ weight }) => weight > LEAST), seeds, walk, truncation, square };
}

function styleParts(state: State, known: Known): Recipe["parts"] {
  const { thing, style } = splitPrompt(state.prompt, known);
  if (style >= 0 || !known.styles.length || !thing) return [{ prompt: state.prompt, weight: 1 }];
  const weights = meanValues(state.style, polygon(known.styles.length));
  return known.styles.map((name, i) => ({ prompt: `${thing}, ${name}`, weight: weights[i]! }));
}

/** Return four prompts with the weights of a point of the square between them. */
export function squareParts(prompts: readonly string[], [x, y]: Point): Recipe["parts"] {
  const weights = [(1 - x) * (1 - y), x * (1 - y), x * y, (1 - x) * y];
  return prompts.map((prompt, i) => ({ prompt, weight: weights[i]! }));
}

/**
 * Return a point's mean value coordinates in a convex polygon (Floater 2003): weights whose sum is 1, that
 * change smoothly, and that are 1 at a corner and 0 at the corners of other edges.
 */
export function meanValues([x, y]: Point, corners: readonly Point[]): number[] {
  const count = corners.length;
  const sides = corners.map(([cx, cy]) => [cx - x, cy - y] as const);
  const lengths = sides.map(([dx, dy]) => Math.hypot(dx, dy));
  const at = lengths.findIndex((length) => length < 1e-3);
  if (at >= 0) return corners.map((_, i) => (i === at ? 1 : 0));
  const tangents = sides.map(([ax, ay], i) => {
    const [bx, by] = sides[(i + 1) % count]!;
    return Math.tan(Math.atan2(Math.abs(ax * by - ay * bx), ax * bx + ay * by) / 2);
  });
  const edge = tangents.findIndex((tangent) => tangent > 1e4); // the point is on it
  if (edge >= 0) {
    const next = (edge + 1) % count;
    const share = lengths[edge]! / (lengths[edge]! + lengths[next]!);
    return corners.map((_, i) => (i === edge ? 1 - share : i === next ? share : 0));
  }
  const weights = lengths.map(
    (length, i) => (tangents[(i + count - 1) % count]! + tangents[i]!) / Math.max(length, 1e-12),
  );
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Return the point of a convex polygon, given clockwise, that is nearest to `point`. */
export function intoPolygon(point: Point, corners: readonly Point[]): Point {
  const [x, y] = point;
  let nearest: Point = point;
  let least = Infinity;
  let inside = true;
  corners.forEach(([ax, ay], i) => {
    const [bx, by] = corners[(i + 1) % corners.length]!;
    const [ex, ey] = [bx - ax, by - ay];
    if (ex * (y - ay) - ey * (x - ax) < 0) inside = false;
    const along = Math.min(Math.max(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0), 1);
    const on: Point = [ax + along * ex, ay + along * ey];
    const distance = Math.hypot(on[0] - x, on[1] - y);
    if (distance < least) [least, nearest] = [distance, on];
  });
  return inside ? point : nearest;
}

/** Return the states of a round trip: along the pad's edge, while the walk goes to the second seed and back. */
export function roundTrip(state: State, known: Known, count: number): State[] {
  const corners = state.mode === "corners" ? SQUARE : polygon(known.styles.length);
  const { thing } = splitPrompt(state.prompt, known);
  return Array.from({ length: count }, (_, i) => {
    const walk = 1 - Math.abs(1 - (2 * i) / count);
    if (!corners.length) return { ...state, walk };
    const place = (i / count) * corners.length;
    const [ax, ay] = corners[Math.floor(place)]!;
    const [bx, by] = corners[(Math.floor(place) + 1) % corners.length]!;
    const rest = place % 1;
    const point: Point = [ax + (bx - ax) * rest, ay + (by - ay) * rest];
    return state.mode === "corners"
      ? { ...state, walk, corner: point }
      : { ...state, walk, prompt: thing, style: point };
  });
}

/** Say in words what is drawn: "a fox, 60% flat + 40% noto". */
export function subject({ parts }: Recipe): string {
  if (parts.length === 1) return parts[0]!.prompt;
  const prompts = parts.map(({ prompt }) => prompt.split(/, (?=[^,]*$)/));
  const [head] = prompts[0]!;
  const sameThing = prompts.every(([thing, style]) => thing === head && style !== undefined);
  const total = parts.reduce((sum, { weight }) => sum + weight, 0);
  const names = parts.map(({ prompt, weight }, i) => {
    const name = sameThing ? prompts[i]![1]!.replace(/ style$/, "") : prompt;
    return { name, percent: Math.round((100 * weight) / total) };
  });
  names.sort((a, b) => b.percent - a.percent);
  const most = names.slice(0, MOST_NAMED).map(({ name, percent }) => `${percent}% ${name}`);
  const rest = names.length > MOST_NAMED ? " + …" : "";
  return `${sameThing ? `${head}, ` : ""}${most.join(" + ")}${rest}`;
}

/** Say in words how a picture is drawn: its subject, its seed, its truncation. */
export function describe(recipe: Recipe): string {
  const { seeds, walk, truncation } = recipe;
  const between = `${Math.round(100 * walk)}% of the way from seed ${seeds[0]} to ${seeds[1]}`;
  const seed = walk === 0 ? `seed ${seeds[0]}` : walk === 1 ? `seed ${seeds[1]}` : between;
  return `${subject(recipe)}, ${seed}${truncation === undefined ? "" : `, truncation ${truncation}`}`;
}

/** Return the prompts and seeds that a recipe uses, and the texts of a file that say how it mixes them. */
export function sources(recipe: Recipe): {
  prompts: string[];
  seeds: string[];
  mix: Record<string, string>;
} {
  const { parts, seeds, walk } = recipe;
  const used = walk === 0 ? [seeds[0]] : walk === 1 ? [seeds[1]] : [...seeds];
  const isMixed = parts.length > 1 || used.length > 1;
  return {
    prompts: parts.map(({ prompt }) => prompt),
    seeds: used,
    mix: {
      ...(isMixed ? { mix: JSON.stringify({ weights: parts.map(({ weight }) => weight), walk }) } : {}),
      description: describe(recipe),
    },
  };
}
