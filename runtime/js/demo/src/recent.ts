/** The grid of recent pictures. */

import { find, make, show } from "./dom.js";
import { type State, toHash } from "./state.js";

const MOST = 24;

export class Recent {
  private readonly list = find<HTMLUListElement>("#recent");
  private readonly section = find(".recent");
  private readonly items = new Map<string, HTMLLIElement>();

  /** `back` is called with the state of a picture that the visitor goes back to. */
  constructor(private readonly back: (state: State) => void) {}

  /** Put a picture at the front. */
  add(state: State, picture: ImageData, text: string): void {
    const key = toHash(state);
    if (this.items.has(key)) return;
    const canvas = make("canvas");
    show(canvas, picture);
    const button = make("button", { type: "button", title: text, ariaLabel: `Back to ${text}` }, canvas);
    button.onclick = () => this.back(state);
    const item = make("li", {}, button);
    this.list.prepend(item);
    this.items.set(key, item);
    if (this.items.size > MOST) {
      const [[oldest, last]] = this.items as unknown as [[string, HTMLLIElement]];
      last.remove();
      this.items.delete(oldest);
    }
    this.section.hidden = false;
  }

  /** Forget all, as when another model draws. */
  clear(): void {
    this.items.clear();
    this.list.replaceChildren();
    this.section.hidden = true;
  }
}
