/** What a visitor takes along: a picture, an animation, a link. */

import { encodeAnimation, encodePng } from "galip-runtime";
import { find, save } from "./dom.js";
import type { Recipe } from "./mixing.js";
import { type State, toHash } from "./state.js";
import type { Artist } from "./studio.js";

const FRAME_TIME = 90; // ms

/** Save a picture as a PNG file. */
export function savePicture(artist: Artist, picture: ImageData, recipe: Recipe): void {
  save(encodePng(picture, artist.metadata(recipe)), "image/png", `${fileName(recipe)}.png`);
}

/** Draw pictures with `paint` and save them as an animation; the button says how far that is. */
export async function saveAnimation(
  artist: Artist,
  recipes: readonly Recipe[],
  paint: (recipe: Recipe) => Promise<ImageData>,
): Promise<void> {
  const button = find<HTMLButtonElement>("#save-animation");
  const label = button.textContent;
  button.disabled = true;
  try {
    const pictures: ImageData[] = [];
    for (const recipe of recipes) {
      pictures.push(await paint(recipe));
      button.textContent = `Drawing ${pictures.length} of ${recipes.length}`;
    }
    const [first] = recipes;
    const file = encodeAnimation(pictures, { milliseconds: FRAME_TIME, metadata: artist.metadata(first!) });
    save(file, "image/apng", `${fileName(first!)}-animated.png`);
  } finally {
    button.textContent = label;
    button.disabled = false;
  }
}

/** Put an address with the whole state into the address bar and the clipboard. */
export async function copyLink(state: State): Promise<void> {
  const button = find<HTMLButtonElement>("#copy-link");
  const link = new URL(toHash(state), location.href).href;
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    confirm(button, "Copied");
  } catch {
    confirm(button, "It is in the address bar"); // the browser lets no page write to the clipboard
  }
}

/** Say on a button what it has done, for a moment. */
function confirm(button: HTMLButtonElement, text: string): void {
  button.dataset["label"] ??= button.textContent;
  button.textContent = text;
  setTimeout(() => (button.textContent = button.dataset["label"]!), 1600);
}

function fileName({ parts, seeds }: Recipe): string {
  const words = parts.map(({ prompt }) => prompt.toLowerCase()).join(" ");
  return `${words.replace(/[^a-z0-9]+/g, "-").slice(0, 60) || "picture"}-${seeds[0]}`;
}
