/** HTML's character references, as Python's `html.unescape` and ftfy read them. */

import { UsageError } from "../errors.js";
import { ENCODINGS, ENTITIES, ENTITIES_WITHOUT_SEMICOLON } from "./tables.js";

/** Python converts no longer decimal number. */
const MOST_DIGITS = 4300;
const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
const UNAMBIGUOUS = /&#?[0-9A-Za-z]{1,24};/g;
const WINDOWS_1252 = ENCODINGS["sloppy-windows-1252"];

let names: Map<string, string> | undefined;
let unambiguousNames: Map<string, string> | undefined;

/**
 * Replace all character references, also those without a semicolon, as `html.unescape` does.
 *
 * Throws UsageError for a decimal reference of more digits than Python converts.
 */
export function unescape(text: string): string {
  return text.replace(REFERENCE, (_, name: string) => (name[0] === "#" ? numbered(name) : named(name)));
}

/** Replace the references that end in a semicolon, and some in capitals, as `ftfy.fixes.unescape_html` does. */
export function unescapeUnambiguous(text: string): string {
  return text.replace(UNAMBIGUOUS, (reference) => {
    const known = entitiesOfFtfy().get(reference);
    if (known !== undefined || !reference.startsWith("&#")) return known ?? reference;
    const unescaped = unescape(reference);
    return unescaped.includes(";") ? reference : unescaped;
  });
}

function numbered(name: string): string {
  const digits = name.slice(1).replace(";", "");
  const isHexadecimal = digits[0] === "x" || digits[0] === "X";
  if (!isHexadecimal && digits.length > MOST_DIGITS) {
    throw new UsageError(
      `the prompt has an HTML character reference that is not a character: it has ${digits.length} digits`,
    );
  }
  const code = isHexadecimal ? parseInt(digits.slice(1), 16) : parseInt(digits, 10);
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return "\ufffd";
  if (code >= 0x80 && code <= 0x9f) return WINDOWS_1252[code - 0x80]!;
  return isRefused(code) ? "" : String.fromCodePoint(code);
}

/** Return whether HTML allows no reference to the code point: a control character or a noncharacter. */
function isRefused(code: number): boolean {
  if (code < 0x20) return code !== 9 && code !== 10 && code !== 12 && code !== 13;
  return code === 0x7f || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) === 0xfffe;
}

function named(name: string): string {
  const known = entities();
  for (let end = name.length; end > 1; end--) {
    const text = known.get(name.slice(0, end));
    if (text !== undefined) return text + name.slice(end);
  }
  return known.get(name) ?? `&${name}`;
}

/** Return name → text; the name includes the semicolon, except where HTML allows to leave it out. */
function entities(): Map<string, string> {
  if (names) return names;
  names = new Map();
  const words = ENTITIES.split(" ");
  for (let i = 0; i < words.length; i += 2) {
    const codes = words[i + 1]!.split("+").map((code) => parseInt(code, 36));
    names.set(`${words[i]};`, String.fromCodePoint(...codes));
  }
  for (const name of ENTITIES_WITHOUT_SEMICOLON.split(" ")) names.set(name, names.get(`${name};`)!);
  return names;
}

/** Return reference → text of those that ftfy replaces: with a semicolon, and lower-case names in capitals. */
function entitiesOfFtfy(): Map<string, string> {
  if (unambiguousNames) return unambiguousNames;
  unambiguousNames = new Map();
  for (const [name, text] of entities()) {
    if (!name.endsWith(";")) continue;
    unambiguousNames.set(`&${name}`, text);
    const capitals = `&${name.toUpperCase()}`;
    if (name === name.toLowerCase() && unescape(capitals) === capitals) {
      unambiguousNames.set(capitals, text.toUpperCase());
    }
  }
  return unambiguousNames;
}
