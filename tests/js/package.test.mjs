// The package: what is in it, and that browsers get nothing of Node.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { VERSION } from "../../runtime/js/dist/node.js";
import { packageFolder, pathOf, require } from "./support.mjs";

const { build } = require("esbuild");
const description = JSON.parse(readFileSync(join(packageFolder, "package.json")));

test("the version is the package's and the Python runtime's", () => {
  assert.equal(VERSION, description.version);
  const python = readFileSync(pathOf("runtime/galip_runtime/__init__.py"), "utf8");
  assert.ok(python.includes(`__version__ = "${VERSION}"`));
});

test("what npm packs", () => {
  const command = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const [{ files, size }] = JSON.parse(
    execFileSync("npm", command, { cwd: packageFolder, encoding: "utf8" }),
  );
  const names = new Set(files.map(({ path }) => path));
  for (const name of [
    "LICENSE",
    "NOTICE",
    "licenses/Apache-2.0.txt",
    "dist/cli.js",
    "dist/web/galip-runtime.js",
  ]) {
    assert.ok(names.has(name), name);
  }
  for (const { types, default: module } of Object.values(description.exports["."])) {
    assert.ok(names.has(types.slice(2)) && names.has(module.slice(2)));
  }
  assert.ok(![...names].some((name) => name.endsWith(".wasm") || name.startsWith("src/")));
  assert.ok(size < 200_000, `${size} bytes`);
});

test("nothing but fflate comes with it", () =>
  assert.deepEqual(Object.keys(description.dependencies), ["fflate"]));

test("the lock file names no registry", () => {
  const lock = JSON.parse(readFileSync(join(packageFolder, "package-lock.json")));
  assert.ok(Object.values(lock.packages).every(({ resolved }) => resolved === undefined));
});

for (const entry of ["browser.js", "worker.js"]) {
  test(`${entry} needs nothing of Node`, async () => {
    const options = {
      absWorkingDir: packageFolder,
      bundle: true,
      format: "esm",
      write: false,
      metafile: true,
    };
    const external = ["onnxruntime-web/*"];
    const { metafile } = await build({
      ...options,
      platform: "browser",
      external,
      entryPoints: [`dist/${entry}`],
    });
    const inputs = Object.keys(metafile.inputs);
    assert.ok(!inputs.some((path) => path.endsWith("node.js")));
    // the page's own thread neither tokenizes nor reads bundles
    if (entry === "browser.js")
      assert.ok(!inputs.some((path) => /tables|mojibake|reading\.js|onnx/.test(path)));
  });
}

test("TypeScript finds each entry's own types", () => {
  const folder = mkdtempSync(join(packageFolder, "dist", "types-"));
  try {
    for (const [resolution, module, picture] of [
      ["NodeNext", "NodeNext", "Picture"],
      ["bundler", "ESNext", "ImageData"],
    ]) {
      const file = join(folder, `${resolution}.ts`);
      const lines = [
        'import { load, type Picture } from "galip-runtime";',
        "const model = await load(new Blob());",
      ];
      const line = `export const pictures: (${picture} & Picture)[] = await model.generate({ prompts: "a" });`;
      writeFileSync(file, [...lines, line].join("\n"));
      const options = [
        "--module",
        module,
        "--moduleResolution",
        resolution,
        "--target",
        "ES2022",
        "--types",
        "node",
      ];
      execFileSync("npx", ["tsc", "--ignoreConfig", "--noEmit", "--strict", ...options, file], {
        cwd: packageFolder,
      });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("installed without an onnxruntime, it says what to install", () => {
  const folder = mkdtempSync(join(tmpdir(), "galip-js-"));
  try {
    const packed = ["pack", "--silent", "--ignore-scripts", "--pack-destination", folder];
    const archive = execFileSync("npm", packed, { cwd: packageFolder, encoding: "utf8" }).trim();
    const modules = join(folder, "node_modules");
    mkdirSync(modules);
    execFileSync("tar", ["-xzf", join(folder, archive), "-C", modules]);
    renameSync(join(modules, "package"), join(modules, "galip-runtime"));
    cpSync(dirname(require.resolve("fflate/package.json")), join(modules, "fflate"), { recursive: true });
    const command = [
      join(modules, "galip-runtime", "dist", "cli.js"),
      pathOf("tests/vectors/bundle.zip"),
      "a",
      "-o",
      "a.png",
    ];
    const { status, stderr } = spawnSync(process.execPath, command, { cwd: folder, encoding: "utf8" });
    assert.equal(status, 5, stderr);
    assert.match(stderr, /npm install onnxruntime-node/);
    assert.match(stderr, /npm install onnxruntime-web/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
