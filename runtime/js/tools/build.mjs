// dist/: a module a file for bundlers and Node, and in dist/web/ two files for pages without a bundler.
import { execFileSync } from "node:child_process";
import { chmodSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
rmSync(`${root}/dist`, { recursive: true, force: true });
execFileSync("npx", ["tsc"], { cwd: root, stdio: "inherit" });
chmodSync(`${root}/dist/cli.js`, 0o755);
await build({
  absWorkingDir: root,
  entryPoints: { "galip-runtime": "src/browser.ts", worker: "src/worker.ts" },
  outdir: "dist/web",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  external: ["onnxruntime-web/*"],
});
