/** The devices, and which of them can be tried here. */

import type * as Ort from "onnxruntime-common";
import { ProviderUnavailable, shortly, UsageError } from "../errors.js";
import type { Graph, Manifest } from "../bundle/manifest.js";

/** Device → what it is. A new one also needs a way to be imported in `browser.ts` or `node.ts`. */
export const DEVICES = {
  webgpu: { needs: "onnxruntime-web and a browser with WebGPU", precisions: ["fp32", "w16a32"] },
  cpu: { needs: "onnxruntime-node", precisions: ["fp32", "w16a32"] },
  wasm: { needs: "onnxruntime-web", precisions: ["fp32", "w16a32"] },
} as const;
export type Device = keyof typeof DEVICES;

/** onnxruntime's packages have this much in common. */
export type OrtModule = Pick<typeof Ort, "InferenceSession" | "Tensor" | "env">;

/** onnxruntime's name of a provider, with its options. */
export type Provider = Ort.InferenceSession.ExecutionProviderConfig;

/** Where we run: a browser or Node. */
export interface Platform {
  readonly name: string;
  /** The devices that there can be, the one that `auto` tries first at the front. */
  readonly devices: readonly Device[];
  /** Import the onnxruntime for a device, which the user named or not. Throws ProviderUnavailable. */
  load(device: Device, threads: number, isNamed: boolean): Promise<OrtModule>;
  /** Return onnxruntime's provider for a graph on a device. */
  provider(device: Device, graph: Uint8Array): Promise<Provider>;
  /** Return how many threads to use, and why not more where there is a reason. */
  threads(device: Device, wanted: number | undefined): { count: number; reason?: string };
}

/** Return the devices to try, best first. Throws UsageError for an unknown device, ProviderUnavailable. */
export function candidates(platform: Platform, device: unknown): readonly Device[] {
  if (device === "auto") return platform.devices;
  if (typeof device !== "string" || !Object.hasOwn(DEVICES, device)) {
    throw new UsageError(
      `there is no device ${shortly(device)}: use auto, ${Object.keys(DEVICES).join(", ")}`,
    );
  }
  const known = device as Device;
  if (platform.devices.includes(known)) return [known];
  throw new ProviderUnavailable(
    `${platform.name} has no device ${device}, which needs ${DEVICES[known].needs}; it has ${platform.devices.join(", ")}`,
  );
}

/**
 * Return the precision of `graph` to use; the text encoder may have fewer than the generator.
 *
 * Throws UsageError for a precision that the bundle does not have or no device computes in.
 */
export function choosePrecision(
  manifest: Manifest,
  graph: Graph,
  precision: unknown,
  devices: readonly Device[],
): string {
  const offered = [...manifest.graphs.generator.keys()].sort();
  if (typeof precision !== "string" || !["auto", ...offered].includes(precision)) {
    throw new UsageError(
      `the bundle has no precision ${shortly(precision)}; it has ${offered.join(", ")}. ` +
        "Use auto or one of these, or export the checkpoint again with the precision you need",
    );
  }
  const supported: string[] = devices.flatMap((device) => DEVICES[device].precisions);
  const own = manifest.graphs[graph];
  if (own.has(precision) && !supported.includes(precision)) {
    throw new UsageError(
      `${devices.join(" and ")} cannot compute in ${precision}: use ${[...new Set(supported)].join(" or ")}`,
    );
  }
  const chosen = own.has(precision) ? precision : supported.find((name) => own.has(name));
  if (chosen === undefined) {
    throw new UsageError(
      `the bundle has its ${graph} in ${[...own.keys()].join(", ")}, and ${devices.join(" and ")} cannot compute in ` +
        "any of these: export the checkpoint again with fp32 or w16a32",
    );
  }
  return chosen;
}
