/** A set of code points, from a table of `tables.ts`. */
export class CodePoints {
  /** Where the set begins and ends, alternately. */
  private readonly boundaries: number[];

  constructor(encoded: string) {
    let end = 0;
    this.boundaries = encoded.split(" ").map((length) => (end += parseInt(length, 36)));
  }

  /** Return the inside of a regular expression's class, for the flag `u`. */
  toClass(): string {
    let text = "";
    for (let i = 0; i < this.boundaries.length; i += 2) {
      text += `${escaped(this.boundaries[i]!)}-${escaped(this.boundaries[i + 1]! - 1)}`;
    }
    return text;
  }
}

/** Return the inside of a class with each character of `text`. */
export function classOf(text: string): string {
  return Array.from(text, (character) => escaped(character.codePointAt(0)!)).join("");
}

function escaped(code: number): string {
  return `\\u{${code.toString(16)}}`;
}
