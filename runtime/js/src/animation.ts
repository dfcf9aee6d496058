/** Animated PNG: what all browsers show, without losses. */

import { concatenated } from "./bytes.js";
import { UsageError } from "./errors.js";
import { chunk, headOfPng, type Picture, pixelData } from "./picture.js";

/** How an animation plays. */
export interface AnimationOptions {
  /** Of each picture; 80 if not given. */
  readonly milliseconds?: number | undefined;
  /** Texts by keyword, in ASCII. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/**
 * Return pictures of one size as the bytes of an animated PNG file, which repeats for ever.
 *
 * A program that knows no animations shows the first. Throws UsageError for no picture and for several sizes.
 */
export function encodeAnimation(
  pictures: readonly Picture[],
  { milliseconds = 80, metadata = {} }: AnimationOptions = {},
): Uint8Array<ArrayBuffer> {
  const [first] = pictures;
  if (!first || pictures.some(({ width, height }) => width !== first.width || height !== first.height)) {
    throw new UsageError("an animation has at least one picture, and all are of one size");
  }
  let sequence = 0;
  const parts = [headOfPng(first, metadata), chunk("acTL", numbers(pictures.length, 0))];
  pictures.forEach((picture, index) => {
    const { width, height } = picture;
    const times = Uint8Array.of(milliseconds >> 8, milliseconds & 255, 1000 >> 8, 1000 & 255, 0, 0);
    parts.push(chunk("fcTL", concatenated([numbers(sequence++, width, height, 0, 0), times])));
    const data = pixelData(picture);
    parts.push(index === 0 ? chunk("IDAT", data) : chunk("fdAT", concatenated([numbers(sequence++), data])));
  });
  return concatenated([...parts, chunk("IEND", new Uint8Array())]);
}

function numbers(...values: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, index) => view.setUint32(4 * index, value));
  return new Uint8Array(view.buffer);
}
