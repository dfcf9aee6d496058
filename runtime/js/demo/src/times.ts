/** How long the last pictures took. */

const MOST = 15;

export class Times {
  private readonly values: number[] = [];

  /** Add a time in ms. */
  add(milliseconds: number): void {
    this.values.push(milliseconds);
    if (this.values.length > MOST) this.values.shift();
  }

  /** The median of the last times in ms. */
  get median(): number {
    const sorted = [...this.values].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? 0;
  }
}
