// node tools/serve.mjs FOLDER [PORT]: serve a folder on this machine, with the headers that wasm threads need.
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** Return a server of `folder`'s files that listens on 127.0.0.1; `isolate`: with the headers. */
export async function serve(folder, { port = 0, isolate = true } = {}) {
  const server = createServer((request, response) => {
    const file = fileOf(folder, request.url);
    const status = file && statSync(file, { throwIfNoEntry: false });
    if (!status?.isFile()) return response.writeHead(404).end();
    response.writeHead(200, {
      "Content-Type": TYPES[extname(file)] ?? "application/octet-stream",
      "Content-Length": status.size,
      "Cache-Control": "no-cache",
      ...(isolate ? ISOLATION : {}),
    });
    return createReadStream(file).pipe(response);
  });
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return server;
}

/** Return the path of the file at an address; undefined for no address. */
function fileOf(folder, url) {
  try {
    const path = normalize(decodeURIComponent(new URL(url, "http://localhost").pathname));
    return path.includes("\0") ? undefined : join(folder, path.endsWith("/") ? `${path}index.html` : path);
  } catch {
    return undefined;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, port = "8080"] = process.argv.slice(2);
  const server = await serve(folder, { port: Number(port) });
  console.log(`http://localhost:${server.address().port}/ (Ctrl-C ends it)`);
}
