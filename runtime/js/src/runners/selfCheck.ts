/** WebGPU, checked: graphics cards and their drivers differ, and some browsers compute WebGPU on the CPU. */

import type { Dimensions } from "../bundle/manifest.js";
import { ProviderUnavailable } from "../errors.js";
import { noise } from "../noise.js";
import { toPixels } from "../picture.js";
import type { Session } from "./session.js";

/** One picture of two devices, compared. */
export interface SelfCheck {
  /** dB */
  readonly psnr: number;
  /** of 255 */
  readonly largestDifference: number;
  /** what the device takes for a picture */
  readonly milliseconds: number;
  /** what WebAssembly takes for it */
  readonly wasmMilliseconds: number;
}

const LEAST_PSNR = 60;

/**
 * Compare two devices' pictures of seed 0 and a sentence vector of seed 1.
 *
 * Throws ProviderUnavailable where they differ, and unless the device `isNamed` where it is slower.
 */
export async function compare(
  session: Session,
  reference: Session,
  dimensions: Dimensions,
  isNamed: boolean,
): Promise<SelfCheck> {
  const [z] = noise(0, dimensions.noiseDim);
  const [e] = noise(1, dimensions.sentenceDim);
  const draw = async (session: Session): Promise<[Uint8ClampedArray, number]> => {
    await runGenerator(session, z!, e!); // compiles the shaders
    const start = performance.now();
    return [toPixels(await runGenerator(session, z!, e!)), performance.now() - start];
  };
  const [pixels, milliseconds] = await draw(session);
  const [expected, wasmMilliseconds] = await draw(reference);
  const check = { ...distance(pixels, expected), milliseconds, wasmMilliseconds };
  if (check.psnr < LEAST_PSNR) {
    throw new ProviderUnavailable(
      `${session.device} draws another picture than ${reference.device}: their PSNR is ${check.psnr.toFixed(1)} dB, ` +
        `and it must be ${LEAST_PSNR}; use device wasm`,
    );
  }
  if (!isNamed && milliseconds > wasmMilliseconds) {
    throw new ProviderUnavailable(
      `${session.device} is slower than ${reference.device} here: it takes ${milliseconds.toFixed()} ms for a picture ` +
        `instead of ${wasmMilliseconds.toFixed()}`,
    );
  }
  return check;
}

/** Run a generator for one row of noise and of a sentence vector. */
export function runGenerator(
  session: Session,
  noise: Float32Array,
  sentence: Float32Array,
): Promise<Float32Array> {
  return session.run({
    noise: { data: noise, shape: [1, noise.length] },
    sentence: { data: sentence, shape: [1, sentence.length] },
  });
}

function distance(
  pixels: Uint8ClampedArray,
  expected: Uint8ClampedArray,
): { psnr: number; largestDifference: number } {
  let [squares, largestDifference] = [0, 0];
  pixels.forEach((value, i) => {
    const difference = Math.abs(value - expected[i]!);
    squares += difference * difference;
    largestDifference = Math.max(largestDifference, difference);
  });
  const count = pixels.length * 0.75; // alpha never differs
  return { psnr: 10 * Math.log10((255 * 255 * count) / Math.max(squares, 1e-3)), largestDifference };
}
