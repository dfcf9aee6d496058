/** What the page says: how far loading is, how pictures are drawn, errors and warnings. */

import type { Progress } from "galip-runtime";
import { find } from "./dom.js";
import type { Artist } from "./studio.js";

const message = find("#message");

/** Show how far loading is; without `progress`, that it has begun. */
export function showProgress(progress?: Progress): void {
  const bar = find<HTMLProgressElement>("#progress");
  find("#loading").hidden = false;
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  if (!progress) bar.removeAttribute("value");
  else {
    bar.max = progress.total;
    bar.value = progress.loaded;
  }
  find("#loading-text").textContent = !progress
    ? "Loading"
    : progress.loaded < progress.total
      ? `${megabytes(progress.loaded)} of ${megabytes(progress.total)} MB`
      : "Starting";
}

/** Say that loading has ended. */
export function hideProgress(): void {
  find("#loading").hidden = true;
}

/** Show how pictures are drawn. */
export function showHow({ text, title }: Artist["how"]): void {
  Object.assign(find("#how"), { textContent: text, title });
}

/** Show an error or a warning; `canRetry`: offer to do again what failed. */
export function tell(error: unknown, about: "loading" | "drawing", canRetry = false): void {
  find("#message p").textContent = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  message.dataset["about"] = about;
  message.hidden = false;
  find("#retry").hidden = !canRetry;
}

/** Take the message away; with `about`, only one that is about it. */
export function untell(about?: "loading" | "drawing"): void {
  if (about === undefined || message.dataset["about"] === about) message.hidden = true;
}
