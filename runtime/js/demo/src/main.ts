/** The page: what the visitor does becomes a state, and the newest state is drawn. */

import { type BundlePlace, load } from "galip-runtime";
import { offerBundles } from "./bundles.js";
import { Completions } from "./completions.js";
import { find, show } from "./dom.js";
import { complete, type Known, knownTo, splitPrompt } from "./known.js";
import {
  describe,
  intoPolygon,
  polygon,
  type Recipe,
  recipeOf,
  SQUARE,
  stylePoint,
  subject,
} from "./mixing.js";
import { hideProgress, showHow, showProgress, tell, untell } from "./messages.js";
import { goOffline } from "./offline.js";
import { Pad } from "./pad.js";
import { Painter } from "./painter.js";
import { apiKey, offerPlaces, type Place, showPlace } from "./place.js";
import { Recent } from "./recent.js";
import { copyLink, saveAnimation, savePicture } from "./saving.js";
import { fromHash, NO_TRUNCATION, START, type State, toHash } from "./state.js";
import { findService, type ServiceConfig, ServiceError, servedModel } from "./service.js";
import { ServiceStudio } from "./serviceStudio.js";
import { type Artist, Studio } from "./studio.js";

const SETTLED = 900; // ms without a change until a picture counts as recent
const IDLE = 200; // ms without a change until the pad's small pictures are drawn again
const SHOWN = 512 * Math.min(Math.ceil(devicePixelRatio), 2); // pixels of the large picture
const RADIUS = 0.36; // of the style pad's polygon, as a share of its width
const INSET = 0.16; // of the square between four prompts
const PLACES = ["top left", "top right", "bottom right", "bottom left"];

const canvas = find<HTMLCanvasElement>("#picture");
const prompt = find<HTMLInputElement>("#prompt");
const corners = [0, 1, 2, 3].map((i) => find<HTMLInputElement>(`#corner-${i}`));
const seeds = [0, 1].map((i) => find<HTMLInputElement>(`#seed-${i}`));
const walk = find<HTMLInputElement>("#walk");
const truncation = find<HTMLInputElement>("#truncation");
const actions = document.querySelectorAll<HTMLButtonElement>(".actions button");

let state = fromHash(location.hash, START);
let known: Known = { source: "", styles: [], things: [] };
let studio: Artist | undefined;
let service: ServiceConfig | undefined;
let loading: AbortController | undefined;
let stylePad: Pad | undefined;
let last: { state: State; recipe: Recipe; picture: ImageData } | undefined;
let drawsIn: Place = "tab";
let drawn = 0;
let timers: number[] = [];
let shownSpots = "";

const painter = new Painter<State>(draw, (error) => {
  tell(error, "drawing", error instanceof ServiceError);
});
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
  const recipe = painting.nearest(recipeOf(wish, known));
  const picture = await painting.paint(recipe);
  last = { state: wish, recipe, picture };
  const warning = painting.warningOf(recipe);
  if (warning) tell(warning, "drawing");
  else untell("drawing");
  // in a moment: by then the worker has begun the next picture
  requestAnimationFrame(() => present(wish, recipe, picture, painting));
}

function present(wish: State, recipe: Recipe, picture: ImageData, painting: Artist): void {
  show(canvas, picture, Math.max(1, Math.round(SHOWN / picture.width)));
  canvas.ariaLabel = describe(recipe);
  find("#caption").textContent = subject(recipe);
  canvas.dataset["drawn"] = String(++drawn);
  canvas.dataset["state"] = toHash(wish);
  showHow(painting.how);
}

/** The visitor rests: the picture is one of the recent, and the address has its state. */
function settle(): void {
  if (!last || toHash(last.state) !== toHash(state)) return;
  recent.add(last.state, last.picture, describe(last.recipe));
  find("#announcement").textContent = describe(last.recipe);
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
      show(pad.pictures[i]!, await studio!.paint(studio!.nearest(recipeOf(each, known))));
    }),
    async () => {
      shownSpots = key;
    },
  ]);
}

/** Load a bundle in place of what draws now. If it is refused, that stays. */
function open(place: BundlePlace): Promise<void> {
  return change("tab", async (signal) => {
    let warn = (text: string): void => tell(text, "loading");
    const model = await load(place, {
      onnxruntime: "onnxruntime/",
      signal,
      onProgress: showProgress,
      onWarning: (text) => warn(text),
    });
    const next = new Studio(model, await knownTo(model.info().source.sha256));
    warn = (text) => (next.warning = text);
    return next;
  });
}

/** Let the service draw. */
function askService({ source, steps }: ServiceConfig): Promise<void> {
  return change("service", async () => {
    const key = apiKey();
    return new ServiceStudio(await servedModel(key), key, await knownTo(source), source, steps);
  });
}

/** Let what `begin` returns draw from now on. If it throws, what draws now stays. */
async function change(place: Place, begin: (signal: AbortSignal) => Promise<Artist>): Promise<void> {
  loading?.abort();
  const stop = (loading = new AbortController());
  untell();
  showProgress();
  try {
    const next = await begin(stop.signal);
    if (stop.signal.aborted) return await next.dispose();
    await painter.stop();
    await studio?.dispose();
    drawsIn = place;
    use(next);
  } catch (error) {
    if (stop.signal.aborted) return;
    tell(error, "loading", studio === undefined);
  } finally {
    if (loading === stop) {
      hideProgress();
      showPlace(drawsIn);
    }
  }
}

/** Do again what has failed. */
function again(): void {
  if (studio) set({});
  else start();
}

function start(place: Place = service ? "service" : "tab"): Promise<void> {
  return service && place === "service" ? askService(service) : open("bundle/");
}

function use(next: Artist): void {
  if (next.source !== studio?.source) recent.clear();
  studio = next;
  known = next.known;
  shownSpots = "";
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

async function animate(): Promise<void> {
  const painting = studio!;
  const recipes = painting.trip(state).map((each) => painting.nearest(recipeOf(each, known)));
  try {
    await saveAnimation(painting, recipes, (recipe) => painter.between(() => painting.paint(recipe)));
  } catch (error) {
    tell(error, "drawing");
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
    if (last) savePicture(studio!, last.picture, last.recipe);
  };
  find("#save-animation").onclick = animate;
  find("#copy-link").onclick = () => copyLink(state);
  find("#retry").onclick = again;
  find("#dismiss").onclick = () => untell();
  find(".controls").onsubmit = (event) => event.preventDefault();
  window.onhashchange = () => set(fromHash(location.hash, state));
}

listen();
render();
service = await findService();
if (service) {
  drawsIn = "service";
  showPlace(drawsIn);
  offerPlaces(service, start);
}
if (!service || service.tab) offerBundles(open);
const isKept = !service && (await goOffline()); // a service sends the headers for threads itself
await start();
if (isKept && studio) find("#offline").textContent = "Works offline from now on.";
