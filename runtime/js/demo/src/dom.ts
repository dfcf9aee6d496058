/** Small help with the document. */

/** Return the element that `selector` finds. */
export function find<T extends HTMLElement>(selector: string): T {
  const element = document.querySelector<T>(selector);
  if (!element) throw new Error(`the page has no ${selector}`);
  return element;
}

/** Create an element with properties and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Show a picture on a canvas. */
export function show(canvas: HTMLCanvasElement, picture: ImageData): void {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d")!.putImageData(picture, 0, 0);
}

/** Let the browser save bytes as a file. */
export function save(bytes: Uint8Array<ArrayBuffer>, type: string, name: string): void {
  const href = URL.createObjectURL(new Blob([bytes], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
