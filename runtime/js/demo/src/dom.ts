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

/** Show a picture on a canvas; `scale`: how many times larger, smoothly. */
export function show(canvas: HTMLCanvasElement, picture: ImageData, scale = 1): void {
  const { width, height } = picture;
  const size = { width: width * scale, height: height * scale };
  if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
  const context = canvas.getContext("2d")!;
  if (scale === 1) return context.putImageData(picture, 0, 0);
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d")!.putImageData(picture, 0, 0);
  context.imageSmoothingQuality = "high"; // CSS would show the pixels' edges
  context.drawImage(small, 0, 0, size.width, size.height);
}

/** Let the browser save bytes as a file. */
export function save(bytes: Uint8Array<ArrayBuffer>, type: string, name: string): void {
  const href = URL.createObjectURL(new Blob([bytes], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
