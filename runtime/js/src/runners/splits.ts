/** The nodes of an ONNX graph that are too wide for WebGPU. */

// field numbers of onnx.proto
const MODEL_GRAPH = 7;
const GRAPH_NODE = 1;
const NODE_OUTPUT = 2;
const NODE_NAME = 3;
const NODE_OPERATOR = 4;
const BYTES = 2; // protobuf's type of a field with a length

const utf8 = new TextDecoder();

/**
 * Return the names of the nodes that split a tensor into more than `most` parts.
 *
 * onnxruntime computes such a node with a shader that writes all parts at once, and GPUs limit how many buffers
 * a shader has. Throws RangeError for what is no protobuf.
 */
export function wideSplits(model: Uint8Array, most: number): string[] {
  const names: string[] = [];
  for (const graph of fields(model, MODEL_GRAPH)) {
    for (const node of fields(graph, GRAPH_NODE)) {
      const [operator] = fields(node, NODE_OPERATOR);
      const [name] = fields(node, NODE_NAME);
      const outputs = [...fields(node, NODE_OUTPUT)].length;
      if (operator && name && utf8.decode(operator) === "Split" && outputs > most)
        names.push(utf8.decode(name));
    }
  }
  return names;
}

/** Iterate over the fields `wanted` of a message. */
function* fields(message: Uint8Array, wanted: number): Generator<Uint8Array> {
  for (let at = 0; at < message.length;) {
    const [key, start] = varint(message, at);
    const type = key % 8;
    if (type === BYTES) {
      const [length, data] = varint(message, start);
      if (Math.floor(key / 8) === wanted) yield message.subarray(data, data + length);
      at = data + length;
    } else if (type === 0) {
      at = varint(message, start)[1];
    } else if (type === 1 || type === 5) {
      at = start + (type === 1 ? 8 : 4);
    } else {
      throw new RangeError(`protobuf has no type ${type}`);
    }
  }
}

/** Return a number and where it ends. */
function varint(bytes: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let shift = 1; at < bytes.length; shift *= 128) {
    const byte = bytes[at++]!;
    value += (byte & 127) * shift;
    if (byte < 128) return [value, at];
  }
  throw new RangeError("the file ends within a number");
}
