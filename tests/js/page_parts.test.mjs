// Parts of the page that need no browser: mixing, completions, the state in the address, the newest wish.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { encodeAnimation } from "../../runtime/js/dist/node.js";
import { packageFolder, require } from "./support.mjs";

const { build } = require("esbuild");
const { outputFiles } = await build({
  stdin: {
    contents: ["mixing", "known", "state", "painter", "plan"]
      .map((name) => `export * from "./${name}.ts";`)
      .join(""),
    resolveDir: join(packageFolder, "demo", "src"),
  },
  bundle: true,
  format: "esm",
  write: false,
});
const source = Buffer.from(outputFiles[0].contents).toString("base64");
const page = await import(`data:text/javascript;base64,${source}`);
const known = {
  source: "",
  styles: ["3D style", "flat style", "noto style"],
  things: ["a fox", "an ox", "a dog face", "a dog", "fire"],
};
const state = { ...page.START, prompt: "a fox", style: [0, 0] };

test("weights of a point in a polygon reproduce it, and change smoothly up to edges and corners", () => {
  const corners = page.polygon(7);
  const points = [...corners, [0, 0], [0.3, -0.5], [0, -0.999], [-0.4, 0.42]];
  const [[ax, ay], [bx, by]] = corners;
  points.push([0.4 * ax + 0.6 * bx, 0.4 * ay + 0.6 * by], [0.4 * ax + 0.59999 * bx, 0.4 * ay + 0.59999 * by]);
  for (const [x, y] of points) {
    const weights = page.meanValues([x, y], corners);
    assert.ok(weights.every((weight) => weight >= 0));
    assert.ok(Math.abs(weights.reduce((a, b) => a + b) - 1) < 1e-9);
    for (const [axis, value] of [x, y].entries()) {
      const mean = weights.reduce((sum, weight, i) => sum + weight * corners[i][axis], 0);
      assert.ok(Math.abs(mean - value) < 1e-3, `${mean} ${value}`);
    }
  }
  assert.deepEqual(page.meanValues(corners[3], corners), [0, 0, 0, 1, 0, 0, 0]);
});

test("a point outside goes to the nearest one inside", () => {
  assert.deepEqual(page.intoPolygon([2, 0.5], page.SQUARE), [1, 0.5]);
  assert.deepEqual(page.intoPolygon([-3, 9], page.SQUARE), [0, 1]);
  assert.deepEqual(page.intoPolygon([0.2, 0.7], page.SQUARE), [0.2, 0.7]);
});

test("prompts and weights of a state", () => {
  const parts = (change) =>
    page.recipeOf({ ...state, ...change }, known).parts.map(({ prompt, weight }) => [prompt, weight]);
  for (const [prompt, weight] of parts({})) {
    assert.match(prompt, /^a fox, (3D|flat|noto) style$/);
    assert.ok(Math.abs(weight - 1 / 3) < 1e-9);
  }
  assert.deepEqual(parts({ prompt: "a fox, flat style" }), [["a fox, flat style", 1]]);
  assert.deepEqual(parts({ prompt: "Flat Style picture of a fox" }), [["Flat Style picture of a fox", 1]]);
  assert.deepEqual(parts({ style: page.polygon(3)[2] }), [["a fox, noto style", 1]]);
  const corners = ["a", "b", "c", "d"];
  const square = parts({ mode: "corners", corners, corner: [0.25, 0] });
  assert.deepEqual(square, [
    ["a", 0.75],
    ["b", 0.25],
  ]);
  assert.deepEqual(parts({ mode: "corners", corners, corner: [1, 1] }), [["c", 1]]);
  const own = page.recipeOf(state, { source: "", styles: [], things: [] });
  assert.deepEqual(own.parts, [{ prompt: "a fox", weight: 1 }]);
});

test("a picture in words", () => {
  const words = (change) => page.describe(page.recipeOf({ ...state, seeds: ["7", "8"], ...change }, known));
  assert.equal(words({ prompt: "a fox, flat style" }), "a fox, flat style, seed 7");
  assert.equal(words({}), "a fox, 33% 3D + 33% flat + 33% noto, seed 7");
  const mixed = words({ mode: "corners", corners: ["a", "b", "c", "d"], corner: [0.5, 0.5], walk: 0.5 });
  assert.equal(mixed, "25% a + 25% b + 25% c + …, 50% of the way from seed 7 to 8");
});

test("completions: names that begin so before words that do, then styles", () => {
  assert.deepEqual(page.complete("do", known), ["a dog face", "a dog"]);
  assert.deepEqual(page.complete("a f", known), ["a fox", "fire", "a dog face"]);
  assert.deepEqual(page.complete("an o", known), ["an ox"]);
  assert.deepEqual(
    page.complete("a fox", known),
    known.styles.map((name) => `a fox, ${name}`),
  );
  assert.deepEqual(page.complete("a cat, fl", known), ["a cat, flat style"]);
  assert.deepEqual(page.complete("a cat, flat style", known), []);
  assert.deepEqual(page.complete("zebra", known), []);
});

test("the state survives the address", () => {
  const states = [
    state,
    { ...state, prompt: "100% & more, # “ü” 🦊", walk: 0.5, truncation: 1.2, style: [0.125, -0.5] },
    { ...state, mode: "corners", corners: ["", "b&c", "d,e", "f"], seeds: ["0", "18446744073709551615"] },
  ];
  for (const each of states) {
    const read = page.fromHash(page.toHash(each), state);
    assert.deepEqual(read, { ...each, corners: read.corners, prompt: read.prompt });
    assert.deepEqual(
      each.mode === "corners" ? read.corners : read.prompt,
      each.mode === "corners" ? each.corners : each.prompt,
    );
  }
  assert.deepEqual(page.fromHash("", state), state);
  assert.ok(page.toHash({ ...state, prompt: "x".repeat(2 ** 20) }).length < 3000);
});

test("a round trip comes back to where it began", () => {
  const states = page.roundTrip({ ...state, prompt: "a fox, flat style" }, known, 12);
  assert.equal(states.length, 12);
  assert.deepEqual(states[0].style, page.polygon(3)[0]);
  assert.deepEqual(
    states.map(({ walk }) => Math.round(6 * walk)),
    [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1],
  );
  assert.ok(states.every(({ prompt }) => prompt === "a fox"));
});

test("what a service draws: a picture, or one of a strip or a square of them", () => {
  const plan = (change, most = 64) => page.plan(page.recipeOf({ ...state, ...change }, known), most);
  const asked = ({ prompts, seeds, steps, isSquare, index }) => [prompts, seeds, steps, isSquare, index];
  const seeds = ["7", "8"];
  const flat = { prompt: "a fox, flat style", seeds };
  assert.deepEqual(asked(plan(flat)), [["a fox, flat style"], ["7"], 1, false, 0]);
  assert.deepEqual(asked(plan({ ...flat, walk: 1 })), [["a fox, flat style"], ["8"], 1, false, 0]);
  assert.deepEqual(asked(plan({ ...flat, walk: 0.32 })), [["a fox, flat style"], seeds, 11, false, 3]);
  assert.equal(plan({ ...flat, walk: 0.32 }).recipe.walk, 0.3);
  const [, right, left] = page.polygon(3);
  const between = { seeds, style: [0.5 * right[0] + 0.5 * left[0], right[1]] };
  const pair = ["a fox, flat style", "a fox, noto style"];
  assert.deepEqual(asked(plan(between)), [pair, ["7"], 11, false, 5]);
  assert.deepEqual(asked(plan({ ...between, walk: 0.25 })), [pair, seeds, 5, true, 7]);
  const nearer = { seeds, style: [0.4 * right[0] + 0.6 * left[0], right[1]] };
  assert.deepEqual(asked(plan(nearer)), [pair, ["7"], 11, false, 6]); // the same strip
  const corners = { mode: "corners", corners: ["a", "b", "c", "d"], seeds };
  const grid = [["a", "b", "d", "c"], ["7"], 5, false];
  assert.deepEqual(asked(plan({ ...corners, corner: [0.3, 0.5] })), [...grid, 11]);
  assert.deepEqual(asked(plan({ ...corners, corner: [0.3, 0.5], walk: 0.7 }))[1], ["8"]);
  assert.deepEqual(asked(plan({ ...corners, corner: [0.95, 1] })), [["c"], ["7"], 1, false, 0]);
  assert.deepEqual(
    plan({ ...corners, corner: [0.3, 0] }).recipe.parts.map(({ prompt, weight }) => [prompt, weight]),
    [
      ["a", 0.75],
      ["b", 0.25],
    ],
  );
});

test("a service that draws few pictures at a time gets smaller requests", () => {
  for (const most of [1, 2, 3, 4, 8, 9, 64]) {
    for (const mode of ["styles", "corners"]) {
      for (const walk of [0, 0.05, 0.3, 0.5, 0.99, 1]) {
        for (let i = 0; i <= 20; i++) {
          const at = { style: [0.3, 1.5 * (i / 20) - 1], corner: [i / 20, 0.4] };
          const recipe = page.recipeOf({ ...state, mode, walk, ...at }, known);
          const wish = page.plan(recipe, most);
          assert.ok(wish.columns * wish.rows <= most, `${most}: ${wish.columns}x${wish.rows}`);
          assert.ok(wish.index < wish.columns * wish.rows);
          assert.ok(wish.steps === 1 || wish.columns * wish.rows > 1);
          const sum = wish.recipe.parts.reduce((total, { weight }) => total + weight, 0);
          assert.ok(Math.abs(sum - 1) < 1e-9);
          assert.deepEqual(page.plan(wish.recipe, most), {
            ...wish,
            recipe: page.plan(wish.recipe, most).recipe,
          });
        }
      }
    }
  }
});

test("the animation of a service needs few requests", () => {
  for (const mode of ["styles", "corners"]) {
    const wishes = page
      .shortTrip({ ...state, mode, prompt: "a fox, flat style" })
      .map((each) => page.plan(page.recipeOf(each, known), 64));
    const requests = new Set(
      wishes.map(({ prompts, seeds, steps }) => JSON.stringify([prompts, seeds, steps])),
    );
    assert.ok(requests.size <= 5, `${requests.size}`);
    assert.equal(
      new Set(wishes.map(({ recipe }) => page.describe(recipe))).size,
      mode === "corners" ? 16 : 11,
    );
  }
});

test("the painter draws the newest wish, then what waits, and tells of errors", async () => {
  const [done, errors] = [[], []];
  const painter = new page.Painter(
    async (wish) => {
      await new Promise((resolve) => setImmediate(resolve));
      if (wish === "broken") throw new Error(wish);
      done.push(wish);
    },
    (error) => errors.push(error.message),
  );
  painter.later([async () => done.push("spot 1"), async () => done.push("spot 2")]);
  for (let i = 0; i < 20; i++) painter.wish(i);
  const between = painter.between(async () => done.push("between"));
  painter.wish("broken");
  painter.wish("last");
  await between;
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(done, ["spot 1", "last", "between", "spot 2"]);
  painter.wish("one that begins");
  const abandoned = painter.between(async () => done.push("abandoned"));
  painter.wish("one that does not");
  await Promise.all([painter.stop(), assert.rejects(abandoned, { name: "AbortError" })]);
  assert.deepEqual(done.slice(4), ["one that begins"]);
  painter.wish("broken");
  await painter.stop();
  assert.deepEqual(errors, ["broken"]);
});

test("an animation needs pictures of one size", () => {
  const picture = { data: new Uint8ClampedArray(16), width: 2, height: 2 };
  assert.throws(() => encodeAnimation([]), { name: "UsageError" });
  assert.throws(() => encodeAnimation([picture, { ...picture, width: 1, height: 4 }]), {
    name: "UsageError",
  });
  assert.equal(encodeAnimation([picture, picture]).subarray(1, 4).toString(), "80,78,71");
});
