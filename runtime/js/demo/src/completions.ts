/** A text field with completions: the combobox of the ARIA practices. */

import { make } from "./dom.js";

export class Completions {
  private readonly list = make("ul", { className: "options", role: "listbox", hidden: true });
  private chosen = -1;

  /** `options` returns the completions of a text, `changed` is called with each new text. */
  constructor(
    private readonly input: HTMLInputElement,
    private readonly options: (text: string) => readonly string[],
    private readonly changed: (text: string) => void,
  ) {
    this.list.id = `${input.id}-options`;
    this.list.ariaLabel = "Completions";
    input.after(this.list);
    input.role = "combobox";
    input.ariaExpanded = "false";
    input.ariaAutoComplete = "list";
    input.setAttribute("aria-controls", this.list.id);
    input.oninput = () => {
      changed(input.value);
      this.open();
    };
    input.onfocus = () => input.select();
    input.onclick = () => this.open();
    input.onblur = () => this.close();
    input.onkeydown = (event) => this.key(event);
  }

  private open(): void {
    const options = this.options(this.input.value);
    this.list.replaceChildren(...options.map((text, i) => this.option(text, i)));
    this.list.hidden = !options.length;
    this.input.ariaExpanded = String(options.length > 0);
    this.choose(-1);
  }

  private close(): void {
    this.list.hidden = true;
    this.input.ariaExpanded = "false";
    this.choose(-1);
  }

  private option(text: string, index: number): HTMLLIElement {
    const item = make("li", { role: "option", ariaSelected: "false", id: `${this.list.id}-${index}` }, text);
    item.onpointerdown = (event) => {
      event.preventDefault(); // the field keeps the focus
      this.take(text);
    };
    return item;
  }

  private key(event: KeyboardEvent): void {
    const count = this.list.hidden ? 0 : this.list.children.length;
    if (event.key === "ArrowDown" && !count) this.open();
    else if (event.key === "ArrowDown") this.choose((this.chosen + 1) % count);
    else if (event.key === "ArrowUp" && count) this.choose((this.chosen + count) % (count + 1) || count - 1);
    else if (event.key === "Escape" && count) this.close();
    else if (event.key === "Enter") {
      const option = this.list.children[this.chosen]?.textContent;
      if (option) this.take(option);
      else this.close();
    } else return;
    event.preventDefault();
  }

  private take(text: string): void {
    this.input.value = text;
    this.close();
    this.changed(text);
  }

  private choose(index: number): void {
    this.chosen = index;
    [...this.list.children].forEach((item, i) => (item.ariaSelected = String(i === index)));
    const item = this.list.children[index];
    if (item) {
      this.input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }
}
