/** The page: what the visitor does becomes a state, and the newest state is drawn. */

import { type BundlePlace, encodeAnimation, load, type Progress } from "galip-runtime";
import { offerBundles } from "./bundles.js";
import { Completions } from "./completions.js";
import { find, save, show } from "./dom.js";
import { complete, type Known, knownTo, splitPrompt } from "./known.js";
import {
  describe,
  intoPolygon,
  polygon,
  type Recipe,
  recipeOf,
  roundTrip,
  SQUARE,
  stylePoint,
  subject,
} from "./mixing.js";
import { goOffline } from "./offline.js";
import { Pad } from "./pad.js";
import { Painter } from "./painter.js";
import { Recent } from "./recent.js";
import { fromHash, NO_TRUNCATION, START, type State, toHash } from "./state.js";
import { Studio } from "./studio.js";

const FRAMES = 42;
const FRAME_TIME = 90; // ms
const SETTLED = 900; // ms without a change until a picture counts as recent
const IDLE = 200; // ms without a change until the pad's small pictures are drawn again
const SHOWN = 1024; // pixels of the large picture
const RADIUS = 0.36; // of the style pad's polygon, as a share of its width
const INSET = 0.16; // of the square between four prompts
const PLACES = ["top left", "top right", "bottom right", "bottom left"];

const canvas = find<HTMLCanvasElement>("#picture");
const prompt = find<HTMLInputElement>("#prompt");
const corners = [0, 1, 2, 3].map((i) => find<HTMLInputElement>(`#corner-${i}`));
const seeds = [0, 1].map((i) => find<HTMLInputElement>(`#seed-${i}`));
const walk = find<HTMLInputElement>("#walk");
const truncation = find<HTMLInputElement>("#truncation");
const message = find("#message");
const saveAnimation = find<HTMLButtonElement>("#save-animation");
const actions = document.querySelectorAll<HTMLButtonElement>(".actions button");

let state = fromHash(location.hash, START);
let known: Known = { source: "", styles: [], things: [] };
let studio: Studio | undefined;
let loading: AbortController | undefined;
let stylePad: Pad | undefined;
let last: { state: State; recipe: Recipe; picture: ImageData } | undefined;
let drawn = 0;
let timers: number[] = [];
let shownSpots = "";

const painter = new Painter<State>(draw, (error) => tell(error, "drawing"));
const recent = new Recent(set);
const cornerPad = new Pad(find("#corner-pad"), {
  corners: SQUARE,
  labels: PLACES,
  hideLabels: true,
  toShare: ([x, y]) => [INSET + (1 - 2 * INSET) * x, INSET + (1 - 2 * INSET) * y],
  fromShare: ([x, y]) => [(x - INSET) / (1 - 2 * INSET), (y - INSET) / (1 - 2 * INSET)],
  clamp: ([x, y]) => [Math.min(Math.max(x, 0), 1), Math.min(Math.max(y, 0), 1)],
  moved: (corner) => set({ corner }),
});

/** Change the state, show it, and wish for its picture. */
function set(change: Partial<State>): void {
  state = { ...state, ...change };
  render();
  if (!studio) return;
  painter.wish(state);
  timers.forEach(clearTimeout);
  timers = [window.setTimeout(drawSpots, IDLE), window.setTimeout(settle, SETTLED)];
}

function render(): void {
  find<HTMLInputElement>(`[name=mode][value=${state.mode}]`).checked = true;
  find("#styles").hidden = state.mode !== "styles";
  find("#corners").hidden = state.mode !== "corners";
  const fill = (input: HTMLInputElement, text: string): void => {
    if (input.value !== text) input.value = text;
  };
  fill(prompt, state.prompt);
  corners.forEach((input, i) => fill(input, state.corners[i]!));
  seeds.forEach((input, i) => fill(input, state.seeds[i]!));
  fill(walk, String(state.walk));
  fill(truncation, String(state.truncation ?? NO_TRUNCATION));
  find<HTMLOutputElement>("#truncation-value").value = state.truncation?.toFixed(1) ?? "none";
  const words = describe(recipeOf(state, known));
  stylePad?.show(stylePoint(state, known), words);
  cornerPad.show(state.corner, words);
}

async function draw(wish: State): Promise<void> {
  const painting = studio!;
  const recipe = recipeOf(wish, known);
  const picture = await painting.paint(recipe);
  last = { state: wish, recipe, picture };
  show(canvas, picture, Math.max(1, Math.round(SHOWN / picture.width)));
  canvas.ariaLabel = describe(recipe);
  find("#caption").textContent = subject(recipe);
  canvas.dataset["drawn"] = String(++drawn);
  canvas.dataset["state"] = toHash(wish);
  find("#how").textContent = how(painting);
  const warning = painting.warningOf(recipe);
  if (warning) tell(warning, "drawing");
  else if (message.dataset["about"] === "drawing") message.hidden = true;
}

function how({ info, milliseconds }: Studio): string {
  const device = { webgpu: "WebGPU", wasm: "WebAssembly", cpu: "CPU" }[info.device];
  const threads = `${info.threads} thread${info.threads === 1 ? "" : "s"}`;
  const why = info.threadsReason === undefined ? "" : " (no SharedArrayBuffer here)";
  find("#how").title = info.threadsReason ?? "";
  return `${device}, ${threads}${why} · ${info.precision.generator} · ${milliseconds.toFixed(0)} ms a picture`;
}

/** The visitor rests: the picture is one of the recent, and the address has its state. */
function settle(): void {
  if (!last || toHash(last.state) !== toHash(state)) return;
  recent.add(last.state, last.picture, describe(last.recipe));
  history.replaceState(null, "", toHash(state));
}

/** Draw the small pictures at the corners of the pad, unless they show the same already. */
function drawSpots(): void {
  const pad = state.mode === "corners" ? cornerPad : stylePad;
  const { thing } = splitPrompt(state.prompt, known);
  const states: State[] =
    state.mode === "corners"
      ? SQUARE.map((corner) => ({ ...state, corner }))
      : polygon(known.styles.length).map((style) => ({ ...state, prompt: thing, style }));
  const key = states.map(toHash).join();
  if (!pad || key === shownSpots) return;
  painter.later([
    ...states.map((each, i) => async () => {
      show(pad.pictures[i]!, await studio!.paint(recipeOf(each, known)));
    }),
    async () => {
      shownSpots = key;
    },
  ]);
}

/** Load a bundle in place of the one that is there. If it is refused, the old one stays. */
async function open(place: BundlePlace): Promise<void> {
  loading?.abort();
  const stop = (loading = new AbortController());
  let warn = (text: string): void => tell(text, "loading");
  message.hidden = true;
  showProgress();
  try {
    const model = await load(place, {
      onnxruntime: "onnxruntime/",
      signal: stop.signal,
      onProgress: showProgress,
      onWarning: (text) => warn(text),
    });
    const next = new Studio(model, await knownTo(model.info().source.sha256));
    if (stop.signal.aborted) return await next.dispose();
    warn = (text) => (next.warning = text);
    await painter.stop();
    await studio?.dispose();
    use(next);
  } catch (error) {
    if (!stop.signal.aborted) tell(error, "loading");
  } finally {
    if (loading === stop) find("#loading").hidden = true;
  }
}

function use(next: Studio): void {
  studio = next;
  known = next.known;
  shownSpots = "";
  recent.clear();
  const styles = polygon(known.styles.length);
  find("#style-pad").hidden = find("#any-prompt").hidden = !styles.length;
  stylePad = styles.length
    ? new Pad(find("#style-pad"), {
        corners: styles,
        labels: known.styles.map((name) => name.replace(/ style$/, "")),
        toShare: ([x, y]) => [0.5 + RADIUS * x, 0.5 + RADIUS * y],
        fromShare: ([x, y]) => [(x - 0.5) / RADIUS, (y - 0.5) / RADIUS],
        clamp: (point) => intoPolygon(point, styles),
        moved: (style) => set({ style, prompt: splitPrompt(state.prompt, known).thing }),
      })
    : undefined;
  actions.forEach((button) => (button.disabled = false));
  document.body.classList.add("again");
  set({});
}

function showProgress(progress?: Progress): void {
  const bar = find<HTMLProgressElement>("#progress");
  find("#loading").hidden = false;
  const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(1);
  if (!progress) bar.removeAttribute("value");
  else {
    bar.max = progress.total;
    bar.value = progress.loaded;
  }
  find("#loading-text").textContent = !progress
    ? "Loading"
    : progress.loaded < progress.total
      ? `${megabytes(progress.loaded)} of ${megabytes(progress.total)} MB`
      : "Starting";
}

/** Show an error or a warning. Those about drawing go away with the next picture. */
function tell(error: unknown, about: "loading" | "drawing"): void {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  find("#message p").textContent = text;
  find("#retry").hidden = studio !== undefined;
  message.dataset["about"] = about;
  message.hidden = false;
}

/** Say on a button what it has done, for a moment. */
function confirm(button: HTMLButtonElement, text: string): void {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => (button.textContent = before), 1600);
}

function fileName({ parts, seeds }: Recipe): string {
  const words = parts.map(({ prompt }) => prompt).join(" ");
  return `${
    words
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-")
      .slice(0, 60) || "picture"
  }-${seeds[0]}`;
}

async function animate(): Promise<void> {
  const [painting, label] = [studio!, saveAnimation.textContent];
  const recipes = roundTrip(state, known, FRAMES).map((each) => recipeOf(each, known));
  saveAnimation.disabled = true;
  try {
    const pictures: ImageData[] = [];
    for (const recipe of recipes) {
      pictures.push(await painter.between(() => painting.paint(recipe)));
      saveAnimation.textContent = `Drawing ${pictures.length} of ${FRAMES}`;
    }
    const metadata = painting.metadata(recipes[0]!);
    const file = encodeAnimation(pictures, { milliseconds: FRAME_TIME, metadata });
    save(file, "image/apng", `${fileName(recipes[0]!)}-animated.png`);
  } catch (error) {
    tell(error, "drawing");
  } finally {
    saveAnimation.textContent = label;
    saveAnimation.disabled = false;
  }
}

async function copyLink(): Promise<void> {
  const link = new URL(toHash(state), location.href).href;
  history.replaceState(null, "", link);
  try {
    await navigator.clipboard.writeText(link);
    confirm(find("#copy-link"), "Copied");
  } catch {
    confirm(find("#copy-link"), "It is in the address bar"); // the browser lets no page write there
  }
}

function anySeed(): string {
  return String(Math.floor(Math.random() * 1e6));
}

function listen(): void {
  new Completions(
    prompt,
    (text) => complete(text, known),
    (text) => set({ prompt: text }),
  );
  corners.forEach((input, i) => {
    const changed = (text: string): void => set({ corners: state.corners.with(i, text) });
    new Completions(input, (text) => complete(text, known), changed);
  });
  document.querySelectorAll<HTMLInputElement>("[name=mode]").forEach((radio) => {
    radio.onchange = () => set({ mode: radio.value as State["mode"] });
  });
  seeds.forEach((input, i) => {
    const change = (seed: string): void =>
      set({ seeds: i === 0 ? [seed, state.seeds[1]] : [state.seeds[0], seed] });
    input.oninput = () => change(input.value.trim());
    find(`#any-seed-${i}`).onclick = () => change(anySeed());
  });
  walk.oninput = () => set({ walk: walk.valueAsNumber });
  truncation.oninput = () => {
    const cut = truncation.valueAsNumber;
    set({ truncation: cut < NO_TRUNCATION ? cut : undefined });
  };
  find("#any-prompt").onclick = () => {
    set({ prompt: known.things[Math.floor(Math.random() * known.things.length)]! });
  };
  find("#save-picture").onclick = () => {
    if (last) save(studio!.png(last.picture, last.recipe), "image/png", `${fileName(last.recipe)}.png`);
  };
  saveAnimation.onclick = animate;
  find("#copy-link").onclick = copyLink;
  find("#retry").onclick = () => open("bundle/");
  find("#dismiss").onclick = () => (message.hidden = true);
  find(".controls").onsubmit = (event) => event.preventDefault();
  window.onhashchange = () => set(fromHash(location.hash, state));
  offerBundles(open);
}

listen();
render();
const isKept = await goOffline();
await open("bundle/");
if (isKept && studio) find("#offline").textContent = "Works offline from now on.";
