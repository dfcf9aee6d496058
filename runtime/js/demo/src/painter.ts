/** Draws one thing at a time: the newest wish first, and what can wait when there is none. */

/** A piece of work that can wait. */
export type Job = () => Promise<void>;

export class Painter<Wish> {
  private newest: { readonly wish: Wish } | undefined;
  private readonly queued: { readonly job: Job; readonly abandon: () => void }[] = [];
  private waiting: Job[] = [];
  private running: Promise<void> = Promise.resolve();
  private isRunning = false;

  /** `draw` draws a wish; `failed` gets whatever it throws. */
  constructor(
    private readonly draw: (wish: Wish) => Promise<void>,
    private readonly failed: (error: unknown) => void,
  ) {}

  /** Draw `wish` next; an older one that has not begun is dropped. */
  wish(wish: Wish): void {
    this.newest = { wish };
    this.start();
  }

  /** Return what `job` returns, once it is its turn: after the newest wish. Throws AbortError if it is stopped. */
  between<T>(job: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.queued.push({
        job: () => job().then(resolve, reject),
        abandon: () => reject(new DOMException("another model is loaded", "AbortError")),
      });
      this.start();
    });
  }

  /** Do these jobs, in order, whenever nothing is wished. They replace those that still wait. */
  later(jobs: readonly Job[]): void {
    this.waiting = [...jobs];
    this.start();
  }

  /** Forget everything that has not begun, and return once what has begun is done. */
  async stop(): Promise<void> {
    this.newest = undefined;
    for (const { abandon } of this.queued.splice(0)) abandon();
    this.waiting = [];
    await this.running;
  }

  private start(): void {
    if (this.isRunning) return;
    this.isRunning = true;
    this.running = this.run();
  }

  private async run(): Promise<void> {
    for (;;) {
      const wished = this.newest;
      const job = wished ? undefined : (this.queued.shift()?.job ?? this.waiting.shift());
      if (!wished && !job) {
        this.isRunning = false; // at once: what is wished from now on starts it again
        return;
      }
      this.newest = undefined;
      try {
        await (wished ? this.draw(wished.wish) : job!());
      } catch (error) {
        this.failed(error);
      }
    }
  }
}
