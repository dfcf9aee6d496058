/**
 * CLIP's tokenizer: captions to rows of ids.
 *
 *     caption -> cleaned text -> words -> byte-pair encoding
 *
 * Ids: 256 byte symbols, the same 256 at the end of a word, one id per merge, start, end.
 */

import { FileRefused } from "../errors.js";
import { clean } from "./clean.js";
import { CodePoints } from "./codePoints.js";
import { checkPrompt } from "./prompts.js";
import { LETTERS, NUMBERS, SKIPPED } from "./tables.js";

const END_OF_WORD = "</w>";
const CACHED_WORDS = 100_000;
const CACHED_WORD_LENGTH = 64;
const PADDING_MULTIPLE = 8;
const START = "<start_of_text>";
const END = "<end_of_text>";

const letters = new CodePoints(LETTERS).toClass();
const numbers = new CodePoints(NUMBERS).toClass();
const others = `[^ ${letters}${numbers}${new CodePoints(SKIPPED).toClass()}]+`;
// "ſ" is an "s" wherever case is ignored
const WORDS = new RegExp(
  `<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|[${letters}]+|[${numbers}]|${others}`,
  "gu",
);

/** Byte-pair encoding with a list of merges. */
export class Tokenizer {
  readonly vocabularySize: number;
  private readonly startId: number;
  private readonly endId: number;
  private readonly byteIds: number[];
  private readonly mergedIds: Map<number, number>;
  private readonly cache: Map<string, number[]>;
  private readonly utf8 = new TextEncoder();

  /**
   * `text`: a merge a line, two symbols with a space between; `contextLength`: the most ids in a row.
   *
   * Throws FileRefused if a merge joins symbols that no earlier merge makes, or makes one that exists.
   */
  constructor(
    text: string,
    readonly contextLength: number,
  ) {
    const merges = parseMerges(text);
    this.vocabularySize = 512 + merges.length + 2;
    this.startId = this.vocabularySize - 2;
    this.endId = this.vocabularySize - 1;
    this.byteIds = [];
    byteOrder().forEach((byte, id) => (this.byteIds[byte] = id));
    this.mergedIds = numberMerges(merges, this.vocabularySize);
    this.cache = new Map([
      [START, [this.startId]],
      [END, [this.endId]],
    ]);
  }

  /** The number of merges. */
  get merges(): number {
    return this.mergedIds.size;
  }

  /**
   * Return the ids of a caption: start, caption, end; at most `contextLength`, with the caption cut to fit.
   *
   * Throws UsageError for a prompt of more than `MAX_PROMPT_LENGTH` characters.
   */
  encode(prompt: string): number[] {
    const room = this.contextLength - 2;
    const ids: number[] = [];
    for (const [word] of clean(checkPrompt(prompt)).matchAll(WORDS)) {
      for (const id of this.encodeWord(word)) ids.push(id);
      if (ids.length >= room) break;
    }
    return [this.startId, ...ids.slice(0, room), this.endId];
  }

  /** Return the cleaned end of a prompt that `encode` cuts off; empty where the whole prompt fits. */
  leftOut(prompt: string): string {
    let room = this.contextLength - 2;
    const text = clean(checkPrompt(prompt));
    for (const match of text.matchAll(WORDS)) {
      room -= room > 0 ? this.encodeWord(match[0]).length : 1;
      if (room < 0) return text.slice(match.index);
    }
    return "";
  }

  private encodeWord(word: string): number[] {
    const known = this.cache.get(word);
    if (known) return known;
    const ids = this.merge(this.utf8.encode(word));
    if (word.length <= CACHED_WORD_LENGTH && this.cache.size < CACHED_WORDS) this.cache.set(word, ids);
    return ids;
  }

  /**
   * Encode byte pairs: merge the pair that is first in the list, leftmost first, until none is left.
   *
   * A symbol has a larger id than its parts, so a merge never creates a pair that comes earlier in the list:
   * a heap of (merged id, position) gives the merges in the right order.
   */
  private merge(word: Uint8Array): number[] {
    const ids = Array.from(word, (byte) => this.byteIds[byte]!);
    const count = ids.length;
    ids[count - 1]! += 256;
    const after = ids.map((_, i) => i + 1);
    const before = ids.map((_, i) => i - 1);
    const heap = new Heap();
    const mergedId = (left: number): number | undefined => {
      const right = left < 0 ? count : after[left]!;
      return right >= count || ids[left]! < 0
        ? undefined
        : this.mergedIds.get(this.pair(ids[left]!, ids[right]!));
    };
    const push = (left: number): void => {
      const merged = mergedId(left);
      if (merged !== undefined) heap.push(merged * count + left);
    };
    for (let left = 0; left < count; left++) push(left);
    for (let entry = heap.pop(); entry !== undefined; entry = heap.pop()) {
      const left = entry % count;
      const merged = (entry - left) / count;
      const right = after[left]!;
      if (merged !== mergedId(left)) continue; // one of the two has been merged with another symbol since
      ids[left] = merged;
      ids[right] = -1;
      after[left] = after[right]!;
      if (after[left]! < count) before[after[left]!] = left;
      push(before[left]!);
      push(left);
    }
    return ids.filter((id) => id >= 0);
  }

  private pair(first: number, second: number): number {
    return first * this.vocabularySize + second;
  }
}

/** Pad rows of ids with zeros to the longest, rounded up to a multiple of eight but at most `contextLength`. */
export function padded(
  rows: number[][],
  contextLength: number,
): { data: BigInt64Array; shape: [number, number] } {
  const longest = Math.max(...rows.map((row) => row.length));
  const width = Math.min(Math.ceil(longest / PADDING_MULTIPLE) * PADDING_MULTIPLE, contextLength);
  const data = new BigInt64Array(rows.length * width);
  rows.forEach((row, i) => row.forEach((id, j) => (data[i * width + j] = BigInt(id))));
  return { data, shape: [rows.length, width] };
}

/** Return the 256 bytes in the order of their ids: those printable in Latin-1 first. */
function byteOrder(): number[] {
  const bytes = Array.from({ length: 256 }, (_, byte) => byte);
  const isPrintable = (byte: number): boolean =>
    byte >= 0x21 && byte !== 0xad && (byte < 0x7f || byte > 0xa0);
  return [...bytes.filter(isPrintable), ...bytes.filter((byte) => !isPrintable(byte))];
}

/** Return the character that stands for each byte in a list of merges, in the order of ids. */
function alphabet(): string[] {
  const printable = 188; // they stand for themselves
  return byteOrder().map((byte, id) => String.fromCharCode(id < printable ? byte : 0x100 + id - printable));
}

function parseMerges(text: string): [string, string][] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((line, index) => {
    const [first, second, ...more] = line.split(" ");
    if (!first || !second || more.length)
      throw broken(`merge ${index + 1} is ${JSON.stringify(line.slice(0, 80))}`);
    return [first, second];
  });
}

/** Return pair → id of the two merged. */
function numberMerges(merges: [string, string][], vocabularySize: number): Map<number, number> {
  const symbols = alphabet();
  const ids = new Map(
    [...symbols, ...symbols.map((symbol) => symbol + END_OF_WORD)].map((symbol, id) => [symbol, id]),
  );
  const merged = new Map<number, number>();
  merges.forEach(([first, second], index) => {
    const [left, right] = [ids.get(first), ids.get(second)];
    if (left === undefined || right === undefined || ids.has(first + second)) {
      throw broken(
        `merge ${index + 1} (${JSON.stringify(first)} ${JSON.stringify(second)}) does not join two known ` +
          "symbols into a new one: this is not the beginning of a list like CLIP's",
      );
    }
    merged.set(left * vocabularySize + right, ids.size);
    ids.set(first + second, ids.size);
  });
  return merged;
}

function broken(reason: string): FileRefused {
  return new FileRefused(`the tokenizer's vocabulary is broken: ${reason}`);
}

/** Numbers, smallest first. */
class Heap {
  private readonly items: number[] = [];

  push(item: number): void {
    const items = this.items;
    let index = items.push(item) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (items[parent]! <= item) break;
      items[index] = items[parent]!;
      index = parent;
    }
    items[index] = item;
  }

  pop(): number | undefined {
    const items = this.items;
    const least = items[0];
    const last = items.pop();
    if (!items.length || last === undefined) return least;
    let index = 0;
    for (let child = 1; child < items.length; child = 2 * index + 1) {
      if (child + 1 < items.length && items[child + 1]! < items[child]!) child++;
      if (items[child]! >= last) break;
      items[index] = items[child]!;
      index = child;
    }
    items[index] = last;
    return least;
  }
}
