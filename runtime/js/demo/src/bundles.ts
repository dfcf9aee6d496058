/** A visitor's own bundle: dropped on the page, or chosen. */

import type { BundlePlace } from "galip-runtime";
import { find } from "./dom.js";

/** Call `chosen` with each bundle that the visitor drops or chooses. */
export function offerBundles(chosen: (bundle: BundlePlace) => void): void {
  const overlay = find("#drop");
  const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    overlay.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) overlay.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    overlay.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    void dropped(event.dataTransfer!).then((bundle) => bundle && chosen(bundle));
  });
  for (const name of ["folder", "zip"]) {
    const input = find<HTMLInputElement>(`#${name}`);
    find(`#choose-${name}`).onclick = () => input.click();
    input.onchange = () => {
      const files = [...(input.files ?? [])];
      input.value = ""; // the same one may be chosen again
      if (files.length) chosen(name === "zip" ? files[0]! : files);
    };
  }
}

/** Return a folder's files by path, a ZIP archive, or the files that were dropped together. */
async function dropped({ items }: DataTransfer): Promise<BundlePlace | undefined> {
  const found = [...items].map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() })); // at once
  const files = new Map<string, File>();
  for (const { entry, file } of found) {
    if (entry?.isDirectory) await collect(entry, files);
    else if (file) files.set(file.name, file);
  }
  const [first] = files.values();
  return files.size === 1 && first!.name !== "manifest.json" ? first : files.size ? files : undefined;
}

async function collect(entry: FileSystemEntry, files: Map<string, File>): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) =>
      (entry as FileSystemFileEntry).file(resolve, reject),
    );
    files.set(entry.fullPath.replace(/^\//, ""), file);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // a reader gives a hundred at a time
    const entries = await new Promise<FileSystemEntry[]>((resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (!entries.length) return;
    for (const inside of entries) await collect(inside, files);
  }
}
