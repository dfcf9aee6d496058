/**
 * Text that was decoded with the wrong encoding, repaired as ftfy's `fix_encoding` does.
 *
 * Bytes are strings of characters up to U+00FF here, so that regular expressions can search them.
 */

import { CodePoints } from "./codePoints.js";
import { ASSIGNED, BADNESS, ENCODINGS, LETTERS, NUMBERS, UTF8_DETECTOR } from "./tables.js";

interface Encoding {
  readonly name: string;
  /** Character → byte. */
  readonly bytes: ReadonlyMap<string, string>;
}

const [assigned, letters, numbers] = [ASSIGNED, LETTERS, NUMBERS].map((table) =>
  new CodePoints(table).toClass(),
);
const WORD = `(?=[${assigned}])[${letters}${numbers}]|_`;
const BAD = new RegExp(BADNESS.replace("[\\p{Word}]", `(?:${WORD})`), "u");
const LIKE_UTF8 = new RegExp(UTF8_DETECTOR, "gu");
const ASCII = /^[\0-\x7f]*$/;
const C1_CONTROLS = /[\x80-\x9f]/g;

// UTF-8 in which a space stands for the byte A0
const WITH_SPACES = anyOf(
  "[\xc2\xc3\xc5\xce\xd0\xd9] ",
  "[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]",
  "[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] ",
  "\xf0 [\x80-\xbf][\x80-\xbf]",
  "\xf0[\x80-\xbf] [\x80-\xbf]",
  "\xf0[\x80-\xbf][\x80-\xbf] ",
);
// "Ã la" is "à la", not "àla"
const WORD_A_GRAVE = /\xc3 (?! |quele|quela|quilo|s )/g;
// UTF-8 of which the byte 1A replaces a part
const LOSSY = anyOf(
  "[\xc2-\xdf]\x1a",
  "[\xc2-\xc3][?]",
  "\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
  "\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
  "[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
  "[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
  "[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
  "[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
  "[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
  "\x1a",
);
const REPLACEMENT_BYTES = "\xef\xbf\xbd";

// Forms that UTF-8 forbids: Java's zero and pairs of surrogates. As in Python, `$` is also before a last newline
const END = "(?=\\n?$)";
const oneOf = (bytes: string): string => `(?:[${bytes}]|${END})`;
const [HIGH, LOW, CONTINUATION] = ["\xa0-\xaf", "\xb0-\xbf", "\x80-\xbf"].map(oneOf);
const JAVA_ZERO = `\xc0${oneOf("\x80")}`;
const PAIR = `\xed${HIGH}${CONTINUATION}${oneOf("\xed")}${LOW}${CONTINUATION}`;
const SURROGATE = `\xed${oneOf("\xa0-\xbf")}${CONTINUATION}`;
const FORBIDDEN = new RegExp(`${JAVA_ZERO}|${PAIR}|${SURROGATE}`);
const AT_A_PAIR = new RegExp(`^${PAIR}`);

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encodings: Encoding[] = Object.entries(ENCODINGS).map(([name, upperHalf]) => ({
  name,
  bytes: encodingTable(upperHalf, isSloppy(name) ? "\ufffd" : "\x1a"),
}));

/** Repair text in one encoding that was read as another. */
export function fixEncoding(text: string): string {
  for (;;) {
    const fixed = fixedOnce(text);
    if (fixed === text) return text;
    text = fixed;
  }
}

/** Read C1 control characters as Windows-1252. */
export function fixC1Controls(text: string): string {
  return text.replace(
    C1_CONTROLS,
    (control) => ENCODINGS["sloppy-windows-1252"][control.charCodeAt(0) - 0x80]!,
  );
}

function fixedOnce(text: string): string {
  if (ASCII.test(text) || !BAD.test(text)) return text;
  for (const encoding of encodings) {
    const bytes = encoded(text, encoding);
    const fixed = bytes === undefined ? undefined : decodedLeniently(bytes, encoding.name);
    if (fixed !== undefined) return fixed;
  }
  const consistent = text.replace(LIKE_UTF8, (part) =>
    part.length < text.length && BAD.test(part) ? fixEncoding(part) : part,
  );
  return consistent === text ? fixC1Controls(text) : consistent;
}

function anyOf(...patterns: string[]): RegExp {
  return new RegExp(patterns.join("|"), "g");
}

function isSloppy(encoding: string): boolean {
  return encoding.startsWith("sloppy");
}

/** Return character → byte for bytes from 80 on, the byte 1A and ASCII's others. */
function encodingTable(upperHalf: string, byte1a: string): Map<string, string> {
  const table = new Map<string, string>();
  for (let code = 0; code < 0x80; code++) {
    const byte = String.fromCharCode(code);
    table.set(byte === "\x1a" ? byte1a : byte, byte);
  }
  [...upperHalf].forEach((character, index) => table.set(character, String.fromCharCode(0x80 + index)));
  return table;
}

/** Return the bytes of `text`, or undefined if the encoding lacks one of its characters. */
function encoded(text: string, encoding: Encoding): string | undefined {
  let bytes = "";
  for (const character of text) {
    const byte = encoding.bytes.get(character);
    if (byte === undefined) return undefined;
    bytes += byte;
  }
  return bytes;
}

/** Decode UTF-8 that a program may have damaged; undefined if it is none. */
function decodedLeniently(bytes: string, encoding: string): string | undefined {
  if (encoding !== "macroman" && bytes.search(WITH_SPACES) >= 0) {
    bytes = bytes
      .replace(WORD_A_GRAVE, "\xc3\xa0 ")
      .replace(WITH_SPACES, (part) => part.replaceAll(" ", "\xa0"));
  }
  if (isSloppy(encoding)) bytes = bytes.replace(LOSSY, REPLACEMENT_BYTES);
  try {
    return /[\xc0\xed]/.test(bytes) ? decodedVariants(bytes) : decoded(bytes);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

/** Decode strict UTF-8. Throws TypeError. */
function decoded(bytes: string): string {
  return utf8.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}

/** Decode UTF-8 with Java's zeros and with pairs of surrogates. Throws TypeError. */
function decodedVariants(bytes: string): string {
  let text = "";
  while (bytes) {
    const start = bytes.search(FORBIDDEN);
    if (start !== 0) {
      const end = start < 0 ? bytes.length : start;
      text += decoded(bytes.slice(0, end));
      bytes = bytes.slice(end);
    } else if (bytes.startsWith("\xc0") && bytes.length > 1) {
      text += "\0";
      bytes = bytes.slice(2);
    } else if (bytes.length >= 6 && AT_A_PAIR.test(bytes)) {
      const [, second, third, , fifth, sixth] = Array.from(bytes.slice(0, 6), (byte) => byte.charCodeAt(0));
      text += String.fromCodePoint(
        0x10000 + ((second! & 15) << 16) + ((third! & 63) << 10) + ((fifth! & 15) << 6) + (sixth! & 63),
      );
      bytes = bytes.slice(6);
    } else {
      return text + decoded(bytes); // a lone surrogate or a sequence that ends too early: an error
    }
  }
  return text;
}
