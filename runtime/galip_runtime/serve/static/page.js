// The small page: it asks the service for pictures and shows them.

const KEY = "galip API key";
const STEPS = 12;
const FRESH_SEEDS = 2 ** 32;
const find = (id) => document.getElementById(id);
const form = document.querySelector("form");

function headers() {
  const key = find("key").value.trim();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Ask the service. Throws an error with the service's own words. */
async function ask(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: body ? { ...headers(), "Content-Type": "application/json" } : headers(),
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) {
    throw new Error(
      find("key").value ? "The service does not know this API key." : "The service asks for an API key.",
    );
  }
  const answer = await response.json().catch(() => undefined);
  const message = answer?.error?.message ?? `the service answered ${response.status}`;
  const wait = response.headers.get("Retry-After");
  throw new Error(wait ? `${message} (try again in ${wait} s)` : message);
}

/** Return what the form asks for: one animation, or a picture for each seed. */
function wishes() {
  const { prompt, to, seed, count, truncation } = Object.fromEntries(new FormData(form));
  const first = seed ? BigInt(seed) : BigInt(Math.floor(Math.random() * FRESH_SEEDS));
  const cut = truncation ? { truncation: Number(truncation) } : {};
  if (to.trim()) {
    const body = { prompts: [prompt, to], steps: STEPS, seed: String(first), ...cut };
    return [{ path: "v1/interpolations", body, words: `${prompt} to ${to}`, seed: first, kind: "webp" }];
  }
  return Array.from({ length: Number(count) }, (_, i) => {
    const body = { prompt, n: 1, seed: String(first + BigInt(i)), ...cut };
    return { path: "v1/images/generations", body, words: prompt, seed: first + BigInt(i), kind: "png" };
  });
}

async function draw({ path, body, kind }) {
  const response = await ask(path, body);
  if (kind === "webp") return response.blob();
  const { data } = await response.json();
  const bytes = Uint8Array.from(atob(data[0].b64_json), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

function show(blob, { words, seed, kind }) {
  const address = URL.createObjectURL(blob);
  const image = Object.assign(new Image(), { src: address, alt: `${words}, seed ${seed}` });
  const link = Object.assign(document.createElement("a"), {
    href: address,
    download: `${words.replace(/[^a-z0-9]+/gi, "-").slice(0, 60)}-${seed}.${kind}`,
    textContent: "Save",
    ariaLabel: `Save ${image.alt}`,
  });
  const caption = document.createElement("figcaption");
  caption.append(`${words}, seed ${seed} · `, link);
  const figure = document.createElement("figure");
  figure.append(image, caption);
  const item = document.createElement("li");
  item.append(figure);
  return item;
}

function tell(error) {
  find("message").textContent = error?.message ?? "";
  find("message").hidden = !error;
}

form.onsubmit = async (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, find("key").value.trim());
  tell();
  find("draw").disabled = true;
  try {
    const asked = wishes();
    const blobs = await Promise.all(asked.map(draw)); // at once: the service batches them
    for (const old of document.querySelectorAll("#pictures img")) URL.revokeObjectURL(old.src);
    find("pictures").replaceChildren(...blobs.map((blob, i) => show(blob, asked[i])));
    find("announcement").textContent =
      `Drawn: ${asked.map(({ words, seed }) => `${words}, seed ${seed}`).join("; ")}`;
    await describe();
  } catch (error) {
    tell(error);
  } finally {
    find("draw").disabled = false;
  }
};

async function describe() {
  const { data } = await (await ask("v1/models")).json();
  const [{ id, size, device, precision }] = data;
  const kind = typeof precision === "string" ? precision : precision?.generator;
  find("model").textContent = [id, size && `${size.replace("x", "×")} pixels`, device, kind]
    .filter(Boolean)
    .join(" · ");
}

find("key").value = sessionStorage.getItem(KEY) ?? "";
try {
  const { key } = await (await ask("service.json")).json();
  find("key-field").hidden = !key;
  if (!key || find("key").value) await describe();
} catch (error) {
  tell(error);
}
