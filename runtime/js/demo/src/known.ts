/** What a model knows: the styles and things of its training captions. */

export interface Known {
  /** The SHA-256 of the checkpoint that knows them. */
  readonly source: string;
  readonly styles: readonly string[];
  readonly things: readonly string[];
}

const NOTHING: Known = { source: "", styles: [], things: [] };
const MOST_OPTIONS = 8;

/** Return what the model from `source` knows, by the file beside the page; nothing for another model. */
export async function knownTo(source: string): Promise<Known> {
  const response = await fetch("known.json");
  if (!response.ok) return NOTHING;
  const known = (await response.json()) as Known;
  return known.source === source ? known : NOTHING;
}

/** Return a prompt without the style that it names, and the style's number; -1 if it names none. */
export function splitPrompt(prompt: string, { styles }: Known): { thing: string; style: number } {
  const lower = prompt.toLowerCase();
  const style = styles.findIndex((name) => lower.includes(name.toLowerCase()));
  if (style < 0) return { thing: tidy(prompt), style };
  const start = lower.indexOf(styles[style]!.toLowerCase());
  return { thing: tidy(prompt.slice(0, start) + prompt.slice(start + styles[style]!.length)), style };
}

/** Return prompts that begin as `text` does: things, and after a comma styles. */
export function complete(text: string, { styles, things }: Known): string[] {
  const comma = text.lastIndexOf(",");
  const head = text.slice(0, comma < 0 ? undefined : comma).trim();
  if (comma >= 0 || things.includes(head)) {
    const tail = text
      .slice(comma < 0 ? text.length : comma + 1)
      .trim()
      .toLowerCase();
    const names = styles.filter((name) => name.toLowerCase().includes(tail));
    return names.map((name) => `${head}, ${name}`).filter((option) => option !== text);
  }
  const start = bare(text.toLowerCase());
  const lists: [string[], string[]] = [[], []]; // those that begin so come before those with such a word
  for (const thing of things) {
    const name = bare(thing.toLowerCase());
    if (name.startsWith(start)) lists[0].push(thing);
    else if (name.includes(` ${start}`)) lists[1].push(thing);
  }
  return lists.flat().slice(0, MOST_OPTIONS);
}

function bare(name: string): string {
  return name.trimStart().replace(/^(an?|the) /, "");
}

function tidy(text: string): string {
  return text.replace(/^[\s,]+|[\s,]+$/g, "");
}
