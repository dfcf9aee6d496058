/** Prompts, as callers pass them. */

import { UsageError } from "../errors.js";

/** The most characters (code points) in a prompt. */
export const MAX_PROMPT_LENGTH = 100_000;

/** Return `prompts` as a list. Throws UsageError unless it is text or a list of at least one text. */
export function asPrompts(prompts: unknown): string[] {
  const list: unknown[] = typeof prompts === "string" ? [prompts] : Array.isArray(prompts) ? prompts : [];
  if (!list.length) throw new UsageError("there is no prompt: give a text or a list of at least one text");
  return list.map((prompt, index) => {
    if (typeof prompt !== "string") {
      throw new UsageError(`prompt ${index} is of type ${typeof prompt}, not text`);
    }
    return checkPrompt(prompt, index);
  });
}

/** Return `prompt`. Throws UsageError if it is too long. */
export function checkPrompt(prompt: string, index = 0): string {
  if (prompt.length <= MAX_PROMPT_LENGTH) return prompt;
  const length = [...prompt].length;
  if (length <= MAX_PROMPT_LENGTH) return prompt;
  throw new UsageError(
    `prompt ${index} has ${length.toLocaleString("en")} characters, more than ` +
      `${MAX_PROMPT_LENGTH.toLocaleString("en")}: use a sentence or two`,
  );
}
