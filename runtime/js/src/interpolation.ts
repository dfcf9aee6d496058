/** Interpolation between prompts and between seeds: sentence vectors on a line, noise on the sphere. */

import { shortly, UsageError } from "./errors.js";

/** The most pictures in one interpolation. */
const MAX_PICTURES = 1_000_000;

type Numbers = ArrayLike<number>;
/** `lerp` or `slerp`. */
export type Interpolate = (a: Numbers, b: Numbers, weight: number) => Float64Array;

/** Interpolate linearly from `a` (weight 0) to `b` (weight 1). */
export function lerp(a: Numbers, b: Numbers, weight: number): Float64Array {
  return Float64Array.from(a, (value, i) => value * (1 - weight) + b[i]! * weight);
}

/** Interpolate along the great circle: the mean of two normal vectors would be too short. */
export function slerp(a: Numbers, b: Numbers, weight: number): Float64Array {
  const lengths = Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b));
  const angle = Math.acos(Math.min(Math.max(dot(a, b) / Math.max(lengths, 1e-300), -1), 1));
  const sine = Math.sin(angle);
  if (sine < 1e-6) return lerp(a, b, weight); // the same direction, or opposite ones, which have no one circle
  const [ofA, ofB] = [Math.sin((1 - weight) * angle) / sine, Math.sin(weight * angle) / sine];
  return Float64Array.from(a, (value, i) => value * ofA + b[i]! * ofB);
}

/** Interpolate 1, 2 or 4 corners (top left, top right, bottom left, bottom right) at weights from 0 to 1. */
export function interpolateCorners(
  corners: readonly Numbers[],
  across: number,
  down: number,
  method: Interpolate,
): Float32Array {
  const [topLeft, topRight, bottomLeft, bottomRight] = corners;
  if (!topRight) return Float32Array.from(topLeft!);
  const top = method(topLeft!, topRight, across);
  if (!bottomLeft) return Float32Array.from(top);
  return Float32Array.from(method(top, method(bottomLeft, bottomRight!, across), down));
}

/** Throw UsageError unless an interpolation takes this many prompts and seeds. */
export function checkCorners(prompts: number, seeds: number, square: boolean): void {
  const allowed = square ? ["2,2"] : ["2,1", "1,2", "2,2", "4,1", "1,4", "4,4"];
  if (allowed.includes(`${prompts},${seeds}`)) return;
  const needs = square
    ? "a square needs two prompts and two seeds"
    : "interpolation needs two or four prompts, two or four seeds, or as many of both";
  throw new UsageError(`${needs}, not ${prompts} prompts and ${seeds} seeds`);
}

/** Return the steps along a side. Throws UsageError if they make too many pictures. */
export function checkSteps(steps: unknown, isSquare: boolean): number {
  const most = isSquare ? Math.sqrt(MAX_PICTURES) : MAX_PICTURES;
  if (typeof steps === "number" && Number.isSafeInteger(steps) && steps >= 2 && steps <= most) return steps;
  throw new UsageError(`steps is a whole number from 2 to ${most}, not ${shortly(steps)}`);
}

function dot(a: Numbers, b: Numbers): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
