/** The service worker: it keeps the page for use offline, and adds the headers that threads need. */

const RELOADED = "galip reloaded";
const PATIENCE = 8000; // ms

/**
 * Let the service worker take over, and say whether the page works offline from now on.
 *
 * Where the server lacks the headers for threads, the page is loaded again once, through the service worker.
 * Then the promise never ends.
 */
export async function goOffline(): Promise<boolean> {
  if (!("serviceWorker" in navigator)) return false;
  const { serviceWorker } = navigator;
  try {
    const { active } = await serviceWorker.register("sw.js");
    if (!serviceWorker.controller) {
      active?.postMessage("claim"); // it passed over this page: it began while the page loaded, or past all caches
      await takenOver(serviceWorker);
    }
  } catch {
    return false; // forbidden, as in some private windows: the page works, only not offline
  }
  if (!crossOriginIsolated && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "yes");
    location.reload();
    return new Promise(() => undefined);
  }
  sessionStorage.removeItem(RELOADED);
  return serviceWorker.controller !== null;
}

/** Wait until the service worker controls the page, but not for one that cannot be installed. */
function takenOver(serviceWorker: ServiceWorkerContainer): Promise<void> {
  return new Promise((resolve) => {
    serviceWorker.addEventListener("controllerchange", () => resolve(), { once: true });
    setTimeout(resolve, PATIENCE);
  });
}
