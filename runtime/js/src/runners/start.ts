/** The sessions of both graphs. */

import type { Dimensions } from "../bundle/manifest.js";
import type { Device } from "./devices.js";
import { compare, type SelfCheck } from "./selfCheck.js";
import type { Session, SessionSpec } from "./session.js";

export interface Sessions {
  readonly textEncoder: Session;
  readonly generator: Session;
}

/**
 * Start both graphs. The text encoder takes whole numbers of 64 bits, which WebGPU does not have: WebAssembly
 * runs it there. A WebGPU that draws another picture than WebAssembly, or unless it `isNamed` a slower one, is
 * ProviderUnavailable.
 */
export async function startSessions(
  open: (spec: SessionSpec, on: Device) => Promise<Session>,
  names: { textEncoder: string; generator: string },
  dimensions: Dimensions,
  device: Device,
  isNamed: boolean,
): Promise<Sessions & { selfCheck: SelfCheck | undefined }> {
  const opened: Session[] = [];
  const start = async (spec: SessionSpec, on: Device): Promise<Session> => {
    const session = await open(spec, on);
    opened.push(session);
    return session;
  };
  const { sentenceDim, imageHeight, imageWidth } = dimensions;
  const text = { file: names.textEncoder, inputs: ["tokens"], output: "sentence", shape: [1, sentenceDim] };
  const image = {
    file: names.generator,
    inputs: ["noise", "sentence"],
    output: "image",
    shape: [1, 3, imageHeight, imageWidth],
  };
  try {
    const textEncoder = await start(text, device === "webgpu" ? "wasm" : device);
    const generator = await start(image, device);
    if (device !== "webgpu") return { textEncoder, generator, selfCheck: undefined };
    const reference = await start(image, "wasm");
    const selfCheck = await compare(generator, reference, dimensions, isNamed);
    await reference.close();
    return { textEncoder, generator, selfCheck };
  } catch (error) {
    await Promise.all(opened.map((session) => session.close()));
    throw error;
  }
}
