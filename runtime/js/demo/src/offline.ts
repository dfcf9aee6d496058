/** The service worker: it keeps the page for use offline, and adds the headers that threads need. */

const RELOADED = "galip reloaded";
const PATIENCE = 3000; // ms

/**
 * Let the service worker take over, and say whether the page works offline from now on.
 *
 * Where the server lacks the headers for threads, the page is loaded again once, through the service worker.
 * Then the promise never ends.
 */
export async function goOffline(): Promise<boolean> {
  if (!("serviceWorker" in navigator)) return false;
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
  } catch {
    return false; // forbidden, as in some private windows: the page works, only not offline
  }
  await takenOver();
  if (!crossOriginIsolated && !sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "yes");
    location.reload();
    return new Promise(() => undefined);
  }
  sessionStorage.removeItem(RELOADED);
  return navigator.serviceWorker.controller !== null;
}

/** Wait for the service worker to control the page, which it never does after a reload past all caches. */
function takenOver(): Promise<void> {
  if (navigator.serviceWorker.controller) return Promise.resolve();
  return new Promise((resolve) => {
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve(), { once: true });
    setTimeout(resolve, PATIENCE);
  });
}
