/** What the page says: how far loading is, how pictures are drawn, errors and warnings. */

import type { Info, Progress } from "galip-runtime";
import { find } from "./dom.js";

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

/** Show device, precision and the time of a picture. */
export function showHow(info: Info, milliseconds: number): void {
  const device = { webgpu: "WebGPU", wasm: "WebAssembly", cpu: "CPU" }[info.device];
  const threads = `${info.threads} thread${info.threads === 1 ? "" : "s"}`;
  const why = info.threadsReason === undefined ? "" : " (no SharedArrayBuffer here)";
  const line = find("#how");
  line.title = info.threadsReason ?? "";
  line.textContent = `${device}, ${threads}${why} · ${info.precision.generator} · ${milliseconds.toFixed(0)} ms a picture`;
}

/** Show an error or a warning. */
export function tell(error: unknown, about: "loading" | "drawing"): void {
  find("#message p").textContent = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  message.dataset["about"] = about;
  message.hidden = false;
}

/** Take the message away; with `about`, only one that is about it. */
export function untell(about?: "loading" | "drawing"): void {
  if (about === undefined || message.dataset["about"] === about) message.hidden = true;
}
