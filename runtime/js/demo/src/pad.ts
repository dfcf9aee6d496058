/** A pad: an area in which a point is moved, with a spot at each corner. */

import { make } from "./dom.js";
import type { Point } from "./state.js";

/** What a pad is for. */
export interface PadOptions {
  /** The corners in the pad's own units, clockwise. */
  readonly corners: readonly Point[];
  readonly labels: readonly string[];
  /** Whether the labels are for screen readers alone. */
  readonly hideLabels?: boolean;
  /** From the pad's units to shares of its width and height. */
  readonly toShare: (point: Point) => Point;
  readonly fromShare: (share: Point) => Point;
  /** Return the nearest point where the handle may be. */
  readonly clamp: (point: Point) => Point;
  /** Called when the visitor moves the point. */
  readonly moved: (point: Point) => void;
}

const STEP = 0.04;
const DRAG = 4; // pixels until a press on a spot becomes a drag

export class Pad {
  /** A small picture for each corner. */
  readonly pictures: readonly HTMLCanvasElement[];
  private readonly handle = make("div", { className: "handle" });
  private readonly sliders: readonly HTMLInputElement[];
  private readonly spots: readonly HTMLButtonElement[];
  private point: Point = [0, 0];

  constructor(
    private readonly area: HTMLElement,
    private readonly options: PadOptions,
  ) {
    const { corners, labels, toShare } = options;
    this.pictures = corners.map(() => make("canvas", { width: 1, height: 1 }));
    this.spots = corners.map((corner, i) => {
      const label = make("span", { className: options.hideLabels ? "unseen" : "" }, labels[i]!);
      const spot = make("button", { type: "button", className: "spot" }, this.pictures[i]!, label);
      this.place(spot, toShare(corner));
      spot.addEventListener("click", () => this.move(corner));
      return spot;
    });
    this.sliders = ["across", "down"].map((name, axis) => this.slider(`${area.ariaLabel}, ${name}`, axis));
    area.replaceChildren(outline(corners.map(toShare)), ...this.sliders, ...this.spots, this.handle);
    area.onpointerdown = (event) => this.press(event);
  }

  /** Show the point; `text` says in words where it is. */
  show(point: Point, text: string): void {
    this.point = point;
    this.place(this.handle, this.options.toShare(point));
    this.sliders.forEach((slider, axis) => {
      slider.value = String(point[axis]);
      slider.ariaValueText = text;
    });
    this.spots.forEach((spot, i) => {
      const [x, y] = this.options.corners[i]!;
      spot.classList.toggle("on", Math.hypot(point[0] - x, point[1] - y) < 1e-3);
    });
  }

  private move(point: Point): void {
    this.options.moved(this.options.clamp(point));
  }

  private slider(name: string, axis: 0 | 1 | number): HTMLInputElement {
    const values = this.options.corners.map((corner) => corner[axis]!);
    const range = { min: String(Math.min(...values)), max: String(Math.max(...values)), step: "any" };
    const slider = make("input", { type: "range", ariaLabel: name, ...range });
    slider.onkeydown = (event) => {
      const steps: Record<string, Point> = {
        ArrowLeft: [-STEP, 0],
        ArrowRight: [STEP, 0],
        ArrowUp: [0, -STEP],
        ArrowDown: [0, STEP],
      };
      const step = steps[event.key];
      if (!step) return;
      event.preventDefault();
      this.move([this.point[0] + step[0], this.point[1] + step[1]]);
    };
    slider.oninput = () => {
      const [x, y] = this.point;
      this.move(axis === 0 ? [slider.valueAsNumber, y] : [x, slider.valueAsNumber]);
    };
    return slider;
  }

  private press(down: PointerEvent): void {
    if (down.button !== 0) return;
    const onSpot = down.target instanceof Element && down.target.closest(".spot") !== null;
    let dragging = !onSpot;
    const drag = ({ clientX, clientY }: PointerEvent): void => {
      dragging ||= Math.hypot(clientX - down.clientX, clientY - down.clientY) > DRAG;
      if (!dragging) return;
      this.area.setPointerCapture(down.pointerId);
      const box = this.area.getBoundingClientRect();
      const share: Point = [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
      this.move(this.options.fromShare(share));
    };
    const end = new AbortController();
    this.area.addEventListener("pointermove", drag, { signal: end.signal });
    for (const type of ["pointerup", "pointercancel"] as const) {
      this.area.addEventListener(type, () => end.abort(), { signal: end.signal });
    }
    drag(down);
  }

  private place(element: HTMLElement, [x, y]: Point): void {
    element.style.left = `${100 * x}%`;
    element.style.top = `${100 * y}%`;
  }
}

function outline(points: readonly Point[]): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(svg.namespaceURI, "polygon");
  shape.setAttribute("points", points.map(([x, y]) => `${100 * x},${100 * y}`).join(" "));
  svg.append(shape);
  return svg as SVGElement;
}
