// `galip serve` as a process, for tests of what talks to it.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { bundleFiles, pathOf } from "./support.mjs";

const python = process.env.GALIP_PYTHON || pathOf(".venv/bin/python");

/** Why no service can be started here; false if one can. */
export const noService = !hasService() && "no Python with the service was found; GALIP_PYTHON names one";

function hasService() {
  if (!existsSync(python)) return false;
  try {
    execFileSync(python, ["-c", "import galip_runtime, fastapi, uvicorn"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A service with the stub bundle on a free port, until it is closed. */
export class Service {
  folder = mkdtempSync(join(tmpdir(), "galip-service-"));
  key = "a-key-for-the-tests";

  /** Start it, with options of its command line; `key`: ask for `this.key`; `nan`: the model gives NaN. */
  async open(options = [], { key = false, nan = false } = {}) {
    const bundle = join(this.folder, "bundle");
    if (nan) {
      const script =
        "from pathlib import Path; from stub_bundle import *; make_stub_bundle(Path('bundle'), nan=True)";
      const modules = [pathOf("tests/runtime"), process.env.PYTHONPATH].filter(Boolean).join(delimiter);
      const env = { ...process.env, PYTHONPATH: modules };
      execFileSync(python, ["-c", script], { cwd: this.folder, env });
    } else {
      mkdirSync(bundle);
      for (const [name, bytes] of bundleFiles()) writeFileSync(join(bundle, name), bytes);
    }
    const keys = join(this.folder, "keys");
    writeFileSync(keys, this.key, { mode: 0o600 });
    const words = ["-m", "galip_runtime.serve", bundle, "--port", "0", "--device", "cpu", "--threads", "1"];
    this.process = spawn(python, [...words, ...(key ? ["--api-key-file", keys] : []), ...options], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.log = "";
    this.address = await new Promise((resolve, reject) => {
      this.process.stderr.on("data", (text) => {
        this.log += text;
        const ready = /serving .* at (http:\S+\/)/.exec(this.log);
        if (ready) resolve(ready[1]);
      });
      this.process.on("exit", () => reject(new Error(this.log)));
    });
    return this;
  }

  /** Wait until the log has `text`. */
  async logs(text) {
    while (!this.log.includes(text)) await once(this.process.stderr, "data");
  }

  async close() {
    if (this.process.exitCode === null) {
      const ended = new Promise((resolve) => this.process.on("exit", resolve));
      this.process.kill();
      await ended;
    }
    rmSync(this.folder, { recursive: true });
  }
}
