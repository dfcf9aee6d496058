/** Draws one thing at a time: the newest wish first, and what can wait when there is none. */

/** A piece of work that can wait. */
export type Job = () => Promise<void>;

export class Painter<Wish> {
  private newest: { readonly wish: Wish } | undefined;
  private queued: Job[] = [];
  private waiting: Job[] = [];
  private readonly abandoned: (() => void)[] = [];
  private running: Promise<void> | undefined;

  /** `draw` draws a wish; `failed` is told of what it throws. */
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
      this.queued.push(() => job().then(resolve, reject));
      this.abandoned.push(() => reject(new DOMException("another model is loaded", "AbortError")));
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
    this.queued = [];
    this.waiting = [];
    await this.running;
    for (const abandon of this.abandoned.splice(0)) abandon(); // those that are done take no notice
  }

  private start(): void {
    this.running ??= this.run().finally(() => {
      this.running = undefined;
    });
  }

  private async run(): Promise<void> {
    for (;;) {
      const wished = this.newest;
      const job = wished ? undefined : (this.queued.shift() ?? this.waiting.shift());
      if (!wished && !job) return;
      this.newest = undefined;
      try {
        await (wished ? this.draw(wished.wish) : job!());
      } catch (error) {
        this.failed(error);
      }
    }
  }
}
