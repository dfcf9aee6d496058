/** Pictures: from the generator's images, and as the bytes of a PNG file. */

import { zlibSync } from "fflate";
import { concatenated } from "./bytes.js";
import type { Seed } from "./noise.js";

/** Pixels in RGBA, row by row; an `ImageData` is one. */
export interface Picture {
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

/** Convert an image (3, H, W) to RGBA (H, W, 4): [-1, 1] becomes 0 … 255, rounded as numpy rounds. */
export function toPixels(image: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const size = image.length / 3;
  const pixels = new Uint8ClampedArray(4 * size).fill(255);
  for (let channel = 0; channel < 3; channel++) {
    for (let i = 0; i < size; i++) {
      // in float32, as in Python; the array clamps, and rounds halves to even numbers
      pixels[4 * i + channel] = Math.fround(Math.fround(image[channel * size + i]! + 1) * 127.5);
    }
  }
  return pixels;
}

/** Return texts that say how pictures were generated, for `encodePng`; keywords as in Python. */
export function pictureMetadata(
  prompts: readonly string[],
  seeds: readonly Seed[],
  truncation: number | undefined,
  digest: string,
): Record<string, string> {
  return {
    prompt: [...new Set(prompts)].join("\n"),
    seed: [...new Set(seeds.map(String))].join(", "),
    ...(truncation === undefined ? {} : { truncation: String(truncation) }),
    bundle: digest,
  };
}

/** Return a picture as the bytes of a PNG file, without alpha. `metadata`: texts by keyword, in ASCII. */
export function encodePng(
  picture: Picture,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  return concatenated([
    headOfPng(picture, metadata),
    chunk("IDAT", pixelData(picture)),
    chunk("IEND", new Uint8Array()),
  ]);
}

/** Return what a PNG file has before its pixels: signature, sizes and texts. */
export function headOfPng(
  { width, height }: Picture,
  metadata: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint16(8, 0x0802); // 8 bits, RGB
  return concatenated([
    Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10),
    chunk("IHDR", new Uint8Array(header.buffer)),
    ...Object.entries(metadata).map(([keyword, text]) => textChunk(keyword, text)),
  ]);
}

/** Return a picture's compressed pixels. */
export function pixelData(picture: Picture): Uint8Array {
  return zlibSync(scanLines(picture), { level: 9 });
}

function scanLines({ data, width, height }: Picture): Uint8Array {
  const lines = new Uint8Array(height * (3 * width + 1)); // each begins with its filter: none
  for (let y = 0, target = 0; y < height; y++) {
    target++;
    for (let x = 0; x < width; x++) {
      const pixel = 4 * (y * width + x);
      for (let channel = 0; channel < 3; channel++) lines[target++] = data[pixel + channel]!;
    }
  }
  return lines;
}

function textChunk(keyword: string, text: string): Uint8Array {
  const utf8 = new TextEncoder();
  // keyword, no compression, no language, no translated keyword
  return chunk("iTXt", concatenated([utf8.encode(keyword), Uint8Array.of(0, 0, 0, 0, 0), utf8.encode(text)]));
}

/** Return a chunk of a PNG file. */
export function chunk(type: string, data: Uint8Array): Uint8Array {
  const body = concatenated([new TextEncoder().encode(type), data]);
  const edges = new DataView(new ArrayBuffer(8));
  edges.setUint32(0, data.length);
  edges.setUint32(4, crc32(body));
  return concatenated([new Uint8Array(edges.buffer, 0, 4), body, new Uint8Array(edges.buffer, 4, 4)]);
}

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
