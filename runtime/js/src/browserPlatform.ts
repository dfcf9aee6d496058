/** Browsers: which devices they have, and how onnxruntime-web is imported in a worker. */

import { messageOf, ProviderUnavailable } from "./errors.js";
import type { Device, OrtModule, Platform } from "./runners/devices.js";
import { wideSplits } from "./runners/splits.js";

const MOST_THREADS = 4;

/**
 * Return the browser as a platform.
 *
 * `onnxruntime`: the address of the folder with onnxruntime-web's files; undefined where a bundler finds the
 * package.
 */
export function browser(onnxruntime: string | undefined): Platform {
  const hasWebGpu = "gpu" in navigator;
  return {
    name: "this browser",
    devices: hasWebGpu ? ["webgpu", "wasm"] : ["wasm"],
    threads: threadCount,
    async provider(device, graph) {
      if (device !== "webgpu") return device;
      const buffers = (await requestAdapter()).limits.maxStorageBuffersPerShaderStage;
      return { name: device, forceCpuNodeNames: wideSplits(graph, buffers - 1) }; // one is the input
    },
    async load(device, threads, isNamed) {
      if (device === "webgpu" && (await requestAdapter()).info?.isFallbackAdapter && !isNamed) {
        throw new ProviderUnavailable(
          "this browser has no graphics card for WebGPU and computes it on the CPU",
        );
      }
      const ort = await importOnnxruntime(device, onnxruntime);
      ort.env.wasm.numThreads = threads;
      ort.env.logLevel = "fatal";
      if (onnxruntime !== undefined) ort.env.wasm.wasmPaths = onnxruntime;
      return ort;
    },
  };
}

function threadCount(_: Device, wanted: number | undefined): { count: number; reason?: string } {
  if (globalThis.crossOriginIsolated)
    return { count: wanted ?? Math.min(navigator.hardwareConcurrency, MOST_THREADS) };
  return {
    count: 1,
    reason:
      "this page is not cross-origin isolated, so it has no SharedArrayBuffer: serve it with the headers " +
      "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp",
  };
}

/** What we need of `GPUAdapter`, which TypeScript's library does not have yet. */
interface Adapter {
  readonly limits: { readonly maxStorageBuffersPerShaderStage: number };
  readonly info?: { readonly isFallbackAdapter?: boolean };
}

async function requestAdapter(): Promise<Adapter> {
  const { gpu } = navigator as unknown as { gpu: { requestAdapter(): Promise<Adapter | null> } };
  const adapter = await gpu.requestAdapter();
  if (adapter) return adapter;
  throw new ProviderUnavailable("this browser has WebGPU, but no graphics card for it");
}

async function importOnnxruntime(device: Device, folder: string | undefined): Promise<OrtModule> {
  try {
    if (folder !== undefined) {
      const name = device === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
      return (await import(
        /* webpackIgnore: true */ /* @vite-ignore */ new URL(name, folder).href
      )) as OrtModule;
    }
    return device === "webgpu"
      ? await import("onnxruntime-web/webgpu")
      : await import("onnxruntime-web/wasm");
  } catch (error) {
    throw new ProviderUnavailable(
      `onnxruntime-web cannot be loaded (${messageOf(error)}): npm install onnxruntime-web, or let the option ` +
        "onnxruntime be the address of the folder with its files",
    );
  }
}
