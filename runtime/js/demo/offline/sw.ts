/** The service worker. The bundle is not its business: the library keeps that. */

export {}; // a module, whose names are its own
declare const self: ServiceWorkerGlobalScope;
/** Set by the build: a hash of the page, and its files but onnxruntime's. */
declare const VERSION: string;
declare const FILES: readonly string[];

const scope = self.registration.scope;
const ours = `galip page at ${scope} `;
const name = ours + VERSION;

self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(new URL(file, scope), { cache: "reload" }));
  // a new version waits until the page is closed: its worker would not know the old page's messages
  event.waitUntil(caches.open(name).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOld().then(() => self.clients.claim()));
});

self.addEventListener("message", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method !== "GET" || !url.startsWith(scope) || url.startsWith(new URL("bundle/", scope).href)) return;
  event.respondWith(answer(event.request));
});

async function removeOld(): Promise<void> {
  const names = await caches.keys();
  await Promise.all(
    names.filter((key) => key.startsWith(ours) && key !== name).map((key) => caches.delete(key)),
  );
}

/** Answer from the cache, else from the server; what the host may edit the other way round. */
async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(name);
  const url = new URL(request.url);
  url.search = "";
  const path = url.href.slice(scope.length);
  const key = path === "index.html" ? scope : url.href;
  const isEditable = path === "known.json" || path === "service.json";
  const kept = await cache.match(key);
  if (kept && !isEditable) return isolated(kept);
  try {
    const response = await fetch(request);
    if (response.ok && (isEditable || path.startsWith("onnxruntime/")))
      await cache.put(key, response.clone());
    return isolated(response);
  } catch (error) {
    if (kept) return isolated(kept);
    throw error;
  }
}

/** Return a response with the headers that allow SharedArrayBuffer. */
function isolated(response: Response): Response {
  if (response.type === "opaqueredirect" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
