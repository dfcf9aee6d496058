// node tools/build_page.mjs FOLDER: the page as a folder of files, still without a bundle.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { createRequire } from "node:module";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const [out] = process.argv.slice(2);
if (!out) throw new Error("name the folder to write: node tools/build_page.mjs FOLDER");

const COPIED = ["index.html", "style.css", "icon.svg", "shuffle.svg"];
const EDITABLE = ["known.json", "service.json"]; // by who hosts the page, so no part of its version
const SCRIPTS = ["page.js", "worker.js"];
const ONNXRUNTIME = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, "onnxruntime"), { recursive: true });
const options = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  supported: { "top-level-await": true },
  alias: { "galip-runtime": "./src/browser.ts" },
  external: ["onnxruntime-web/*"],
};
await build({
  ...options,
  entryPoints: { page: "demo/src/main.ts", worker: "src/worker.ts" },
  outdir: resolve(out),
});
for (const name of [...COPIED, ...EDITABLE]) cpSync(join(root, "demo", name), join(out, name));
for (const name of ["LICENSE", "NOTICE", "licenses"]) {
  cpSync(join(root, name), join(out, name), { recursive: true });
}
cpSync(join(root, "node_modules/fflate/LICENSE"), join(out, "licenses", "fflate.txt"));
cpSync(join(root, "demo/onnxruntime.txt"), join(out, "licenses", "onnxruntime.txt"));
const distribution = dirname(createRequire(import.meta.url).resolve("onnxruntime-web/wasm"));
for (const name of ONNXRUNTIME) cpSync(join(distribution, name), join(out, "onnxruntime", name));

const hash = createHash("sha256");
for (const name of [...COPIED, ...SCRIPTS, ...ONNXRUNTIME.map((file) => `onnxruntime/${file}`)]) {
  hash.update(readFileSync(join(out, name)));
}
const files = ["./", ...COPIED.slice(1), ...SCRIPTS, ...EDITABLE];
const { outputFiles } = await build({
  ...options,
  format: "iife",
  entryPoints: ["demo/offline/sw.ts"],
  define: {
    VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)),
    FILES: JSON.stringify(files),
  },
  write: false,
});
writeFileSync(join(out, "sw.js"), outputFiles[0].contents);
