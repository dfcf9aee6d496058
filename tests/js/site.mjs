// A site as a static file server has it, with the package, onnxruntime-web and the stub bundle; and Chromium.
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { bundleFiles, packageFolder, require } from "./support.mjs";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const ISOLATION = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};
/** Chromium's path, which the Makefile finds; empty where there is none. */
export const chromiumPath = process.env.CHROMIUM ?? "";

export async function launchChromium(...args) {
  const { chromium } = require("playwright-core");
  return chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox", ...args] });
}

/** Serves the site until it is closed. */
export class Site {
  /** Path → content, in place of what the package has. */
  files = new Map([...bundleFiles()].map(([name, bytes]) => [`bundle/${name}`, bytes]));
  /** Paths in the order in which they were asked for. */
  asked = [];
  isIsolated = true;

  async open() {
    this.server = createServer((request, response) => this.answer(request, response));
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.address = `http://127.0.0.1:${this.server.address().port}/`;
    this.files.set("", "<!doctype html><title>test</title>");
    this.files.set("favicon.ico", "");
    return this;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  answer(request, response) {
    const path = new URL(request.url, this.address).pathname.slice(1);
    this.asked.push(path);
    const content = this.files.get(path) ?? this.packaged(path);
    if (content === undefined) return response.writeHead(404).end();
    const type = TYPES[extname(path) || ".html"] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type, ...(this.isIsolated ? ISOLATION : {}) });
    return response.end(content);
  }

  packaged(path) {
    const [folder, ...names] = path.split("/");
    const name = names.join("/");
    const place = {
      "galip-runtime": "dist/web",
      dist: "dist",
      onnxruntime: "node_modules/onnxruntime-web/dist",
    }[folder];
    const file = place && name ? join(packageFolder, place, name) : undefined;
    return file && existsSync(file) ? readFileSync(file) : undefined;
  }
}
