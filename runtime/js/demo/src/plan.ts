/** From a recipe to what the service draws: one picture, or one of a strip or a square of pictures. */

import { type Recipe, roundTrip, squareParts } from "./mixing.js";
import type { State } from "./state.js";

/** A request to the service, and which of its pictures is meant. */
export interface Plan {
  /** What is drawn: the recipe that was wished for, or one near to it. */
  readonly recipe: Recipe;
  readonly prompts: readonly string[];
  readonly seeds: readonly string[];
  /** Pictures along a side of what is drawn: 1 for one picture. */
  readonly steps: number;
  /** Whether the prompts are across and the seeds down. */
  readonly isSquare: boolean;
  readonly index: number;
  /** Of pictures in the answer. */
  readonly columns: number;
  readonly rows: number;
}

const LONGEST_STRIP = 11; // steps of a tenth
const WIDEST_SQUARE = 5;

/** Return how to draw `recipe`, or one near to it, with at most `most` pictures in a request. */
export function plan(recipe: Recipe, most: number): Plan {
  const side = Math.min(WIDEST_SQUARE, Math.floor(Math.sqrt(most)));
  return recipe.square ? betweenFour(recipe, recipe.square, side) : betweenTwo(recipe, most, side);
}

/** A point between four prompts is the nearest of a grid, with the nearer seed. */
function betweenFour(recipe: Recipe, { prompts, at }: NonNullable<Recipe["square"]>, side: number): Plan {
  const [column, row] = at.map((share) => nearestStep(share, side)) as [number, number];
  const last = Math.max(side - 1, 1);
  const walk = Math.round(recipe.walk);
  const parts = squareParts(prompts, [column / last, row / last]).filter(({ weight }) => weight > 0);
  const drawn = { ...recipe, parts, walk };
  const seeds = [recipe.seeds[walk]!];
  if (parts.length === 1) return single(drawn, parts[0]!.prompt, seeds[0]!);
  const [topLeft, topRight, bottomRight, bottomLeft] = prompts as [string, string, string, string];
  const corners = [topLeft, topRight, bottomLeft, bottomRight];
  const grid = { steps: side, columns: side, rows: side, isSquare: false };
  return { ...grid, recipe: drawn, prompts: corners, seeds, index: row * side + column };
}

/** Of several prompts the two that count most are mixed, in steps, and so are the seeds. */
function betweenTwo(recipe: Recipe, most: number, side: number): Plan {
  const heaviest = [...recipe.parts].sort((a, b) => b.weight - a.weight).slice(0, 2);
  const pair = recipe.parts.filter((part) => heaviest.includes(part)); // in the same order whichever is heavier
  const share = pair.length > 1 ? pair[1]!.weight / (pair[0]!.weight + pair[1]!.weight) : 0;
  const isMixed = (value: number): boolean => value > 0 && value < 1;
  const length = isMixed(share) && isMixed(recipe.walk) ? side : Math.min(LONGEST_STRIP, most);
  const last = Math.max(length - 1, 1);
  const [across, down] = [nearestStep(share, length), nearestStep(recipe.walk, length)];
  const walk = down / last;
  if (isMixed(recipe.walk) && !isMixed(walk)) return betweenTwo({ ...recipe, walk }, most, side); // in finer steps
  const weights = [1 - across / last, across / last];
  const parts = pair
    .map(({ prompt }, i) => ({ prompt, weight: weights[i]! }))
    .filter(({ weight }) => weight > 0);
  if (isMixed(share) && parts.length === 1) return betweenTwo({ ...recipe, parts }, most, side);
  const drawn = { ...recipe, parts, walk };
  const prompts = parts.map(({ prompt }) => prompt);
  const seeds = isMixed(walk) ? recipe.seeds : [recipe.seeds[walk]!];
  if (prompts.length === 1 && seeds.length === 1) return single(drawn, prompts[0]!, seeds[0]!);
  const isSquare = prompts.length > 1 && seeds.length > 1;
  const index = isSquare ? down * length + across : prompts.length > 1 ? across : down;
  const rows = isSquare ? length : 1;
  return { recipe: drawn, prompts, seeds, steps: length, isSquare, index, columns: length, rows };
}

function single(recipe: Recipe, prompt: string, seed: string): Plan {
  const one = { steps: 1, columns: 1, rows: 1, isSquare: false, index: 0 };
  return { ...one, recipe, prompts: [prompt], seeds: [seed] };
}

/** Return the number of the step, of `steps` from 0 to 1, that is nearest to `share`; with one step, an end. */
function nearestStep(share: number, steps: number): number {
  return Math.round(share * Math.max(steps - 1, 1));
}

/** Return the states of a round trip of few requests: around the square, or to the second seed and back. */
export function shortTrip(state: State): State[] {
  const around = 4 * (WIDEST_SQUARE - 1);
  if (state.mode === "corners") {
    const nothing = { source: "", styles: [], things: [] };
    return roundTrip(state, nothing, around).map((each) => ({ ...each, walk: state.walk }));
  }
  const there = LONGEST_STRIP - 1;
  return Array.from({ length: 2 * there }, (_, i) => ({ ...state, walk: 1 - Math.abs(1 - i / there) }));
}
