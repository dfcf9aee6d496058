/** A graph that onnxruntime runs. */

import type { InferenceSession, Tensor } from "onnxruntime-common";
import { FileRefused, messageOf, ProviderUnavailable, QualityGateFailed } from "../errors.js";
import type { Device, OrtModule, Provider } from "./devices.js";

/** An input of a run. */
export interface Input {
  readonly data: Float32Array | BigInt64Array;
  readonly shape: readonly number[];
}

/** What a session is for. */
export interface SessionSpec {
  /** The graph's file, for messages. */
  readonly file: string;
  readonly inputs: readonly string[];
  readonly output: string;
  /** Sizes of the output. */
  readonly shape: readonly number[];
}

/** How onnxruntime is to run a graph. */
export interface SessionSettings {
  readonly device: Device;
  readonly provider: Provider;
  readonly threads: number;
}

/** Runs one graph on one device. */
export class Session {
  private constructor(
    private readonly ort: OrtModule,
    private readonly session: InferenceSession,
    private readonly spec: SessionSpec,
    readonly device: Device,
  ) {}

  /**
   * Load the graph in `bytes`.
   *
   * Throws ProviderUnavailable where the device does not start, and FileRefused where it can read no graph, or
   * reads another one than the manifest describes.
   */
  static async open(
    ort: OrtModule,
    bytes: Uint8Array,
    spec: SessionSpec,
    { device, provider, threads }: SessionSettings,
  ): Promise<Session> {
    let session: InferenceSession;
    try {
      session = await ort.InferenceSession.create(bytes, {
        executionProviders: [provider],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        logSeverityLevel: 4, // errors are thrown with the same text
        extra: { session: { intra_op: { allow_spinning: "0" } } },
      });
    } catch (error) {
      const message = messageOf(error);
      if (device === "webgpu" || message.includes("no available backend")) {
        throw new ProviderUnavailable(`${device} cannot load ${spec.file}: ${message}`);
      }
      throw new FileRefused(`onnxruntime cannot load ${spec.file}: ${message}. Export it again`);
    }
    const [inputs, outputs] = [[...session.inputNames].sort(), [...session.outputNames]];
    if (inputs.join() !== [...spec.inputs].sort().join() || outputs.join() !== spec.output) {
      await session.release();
      throw new FileRefused(
        `${spec.file} is another graph than the manifest says: it makes ${outputs.join(", ")} of ` +
          `${inputs.join(", ")}. Export the bundle again`,
      );
    }
    return new Session(ort, session, spec, device);
  }

  /**
   * Return the graph's output.
   *
   * Throws ProviderUnavailable where the device fails, FileRefused for an output of another shape, and
   * QualityGateFailed where it is not finite.
   */
  async run(inputs: Record<string, Input>): Promise<Float32Array> {
    const feeds = Object.fromEntries(
      Object.entries(inputs).map(([name, { data, shape }]) => [name, this.tensor(data, shape)]),
    );
    let output: Tensor;
    try {
      output = (await this.session.run(feeds))[this.spec.output]!;
    } catch (error) {
      throw new ProviderUnavailable(
        `${this.device} failed to run ${this.spec.file}: ${messageOf(error)}. If memory is short, close other ` +
          "programs; otherwise export the bundle again",
      );
    }
    if (output.type !== "float32" || output.dims.join() !== this.spec.shape.join()) {
      throw new FileRefused(
        `${this.spec.file} is another graph than the manifest says: its output is ${output.type} (${output.dims.join()}), ` +
          `not float32 (${this.spec.shape.join()}). Export the bundle again`,
      );
    }
    const data = Float32Array.from((await output.getData()) as Float32Array);
    output.dispose();
    if (!data.every(Number.isFinite)) {
      throw new QualityGateFailed(
        `${this.spec.file} gave values that are not finite; load the bundle with precision fp32, and if that ` +
          "doesn't help, export it again",
      );
    }
    return data;
  }

  /** Free the memory. */
  async close(): Promise<void> {
    await this.session.release();
  }

  private tensor(data: Float32Array | BigInt64Array, shape: readonly number[]): Tensor {
    return data instanceof Float32Array
      ? new this.ort.Tensor("float32", data, shape)
      : new this.ort.Tensor("int64", data, shape);
  }
}
