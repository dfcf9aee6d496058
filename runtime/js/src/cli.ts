#!/usr/bin/env node
/** The command `galip-runtime`: a bundle and a prompt to a PNG file. */

import { rename, rm, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { GalipError, messageOf, UsageError } from "./errors.js";
import { encodePng, load, type LoadOptions, seedSeries } from "./node.js";
import { VERSION } from "./version.js";

const USAGE = `Usage: galip-runtime BUNDLE PROMPT -o PICTURE.png [options]

  Draw a picture with a GALIP bundle: a folder or ZIP archive that galip export wrote, or its address.

Options:
  -o, --out <path>       The PNG file to write.  [required]
  --seed <number>        From 0 to 2^64 - 1. Default: a random one, which is printed.
  --truncation <number>  Cut the noise at ± this: plainer pictures, less variety.
  --device <name>        auto, cpu or wasm.  [default: auto]
  --precision <name>     auto or a precision of the bundle.  [default: auto]
  --json                 Print the seed and how the model ran as JSON.
  --version, --help`;

async function main(words: string[]): Promise<void> {
  const { values, positionals } = parse(words);
  if (values.help) return console.log(USAGE);
  if (values.version) return console.log(VERSION);
  const [bundle, prompt, ...more] = positionals;
  if (bundle === undefined || prompt === undefined || more.length)
    throw new UsageError(`give a bundle and a prompt\n\n${USAGE}`);
  const { out } = values;
  if (!out?.toLowerCase().endsWith(".png"))
    throw new UsageError("give the picture's file, which ends in .png, with -o");
  const truncation = values.truncation === undefined ? undefined : Number(values.truncation);
  const seeds = seedSeries(values.seed);
  const options = { device: values.device as LoadOptions["device"], precision: values.precision };
  const model = await load(bundle, { ...options, onWarning: (text) => console.error(`warning: ${text}`) });
  try {
    const [picture] = await model.generate({ prompts: prompt, seeds, truncation });
    await writeWhole(out, encodePng(picture!, model.metadata(prompt, seeds, truncation)));
    const { device, precision, digest } = model.info();
    if (values.json) console.log(JSON.stringify({ out, seed: String(seeds[0]), device, precision, digest }));
    else console.log(`${out}: seed ${seeds[0]}, ${precision.generator} on ${device}`);
  } finally {
    await model.dispose();
  }
}

function parse(words: string[]) {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  try {
    return parseArgs({
      args: words,
      allowPositionals: true,
      options: {
        out: { ...text, short: "o" },
        seed: text,
        truncation: text,
        device: { ...text, default: "auto" },
        precision: { ...text, default: "auto" },
        json: flag,
        version: flag,
        help: flag,
      },
    });
  } catch (error) {
    throw new UsageError(`${messageOf(error)}\n\n${USAGE}`);
  }
}

/** Write a file, whole or not at all. Throws UsageError. */
async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.part`;
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new UsageError(`${path} cannot be written: ${messageOf(error)}`);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof GalipError)) throw error;
  console.error(`${error.name}: ${error.message}`);
  process.exitCode = error.exitCode;
}
