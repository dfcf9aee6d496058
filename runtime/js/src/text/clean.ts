/**
 * The cleaning of a prompt: ftfy's `fix_text`, twice HTML's `unescape`, white space, lower case.
 *
 * The engine's own tables of Unicode are used for characters that `ASSIGNED` has; for others Python has no
 * lower case and no composition.
 */

import { classOf, CodePoints } from "./codePoints.js";
import { fixC1Controls, fixEncoding } from "./mojibake.js";
import { ASSIGNED, LIGATURES, SPACES } from "./tables.js";
import { unescape, unescapeUnambiguous } from "./unescape.js";

const assigned = new CodePoints(ASSIGNED).toClass();
const KNOWN = new RegExp(`[${assigned}]+`, "gu");
const WHITE_SPACE = new RegExp(`[${classOf(SPACES)}]+`, "u");
const LIGATURE = new RegExp(`[${classOf(Object.keys(LIGATURES).join(""))}]`, "gu");
const TERMINAL_ESCAPE = new RegExp(`\\x1b\\[(?:(?=[${assigned}])\\p{Nd}|;)*[a-zA-Z]`, "gu");
const OTHER_WIDTH = /[\u3000\uff01-\uffef]/g;
const LINE_BREAK = /\r\n|[\r\u2028\u2029\x85]/g;
const LONE_SURROGATE = /\p{Cs}/gu;
const CONTROL = /[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]/g;

/** Return the text that the tokenizer splits. Throws UsageError as `unescape`. */
export function clean(prompt: string): string {
  const words = unescape(unescape(fixText(prompt))).split(WHITE_SPACE);
  return eachKnown(words.filter((word) => word).join(" "), (part) => part.toLowerCase());
}

/** Repair broken text as `ftfy.fix_text` does with its defaults. */
function fixText(text: string): string {
  let unescapes = true; // until the first line with a "<"
  const lines = text.match(/[^\n]*\n|[^\n]+/g) ?? [];
  return lines.map((line) => fixLine(line, (unescapes &&= !line.includes("<")))).join("");
}

function fixLine(line: string, unescapes: boolean): string {
  for (;;) {
    const fixed = fixLineOnce(unescapes ? unescapeUnambiguous(line) : line);
    if (fixed === line) return line;
    line = fixed;
  }
}

function fixLineOnce(line: string): string {
  const text = fixC1Controls(fixEncoding(line))
    .replace(LIGATURE, (ligature) => LIGATURES[ligature as keyof typeof LIGATURES])
    .replace(OTHER_WIDTH, (character) => (character === "\u3000" ? " " : character.normalize("NFKC")))
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(LINE_BREAK, "\n")
    .replace(LONE_SURROGATE, "\ufffd")
    .replace(TERMINAL_ESCAPE, "")
    .replace(CONTROL, "");
  return eachKnown(text, (part) => part.normalize("NFC"));
}

function eachKnown(text: string, change: (part: string) => string): string {
  return text.replace(KNOWN, change);
}
