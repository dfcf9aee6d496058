// The tokenizer: ids equal to the Python runtime's on every caption.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { FileRefused, UsageError } from "../../runtime/js/dist/errors.js";
import { MAX_PROMPT_LENGTH } from "../../runtime/js/dist/text/prompts.js";
import { padded, Tokenizer } from "../../runtime/js/dist/text/tokenizer.js";
import { bytesOf, vectors } from "./support.mjs";

const { captions, context_length: context } = vectors("captions");
const tokenizer = new Tokenizer(gunzipSync(bytesOf("merges.txt.gz")).toString(), context);

test("there are captions of all kinds", () => {
  const counts = Object.values(captions).map((rows) => rows.length);
  assert.ok(counts.reduce((a, b) => a + b) >= 10_000);
  assert.ok(counts.length >= 10);
});

for (const [kind, rows] of Object.entries(captions)) {
  test(`ids of ${kind}`, () => {
    for (const [caption, ids] of rows)
      assert.deepEqual(tokenizer.encode(caption), ids, JSON.stringify(caption));
  });
}

test("ids of a caption for nearly every code point", () => {
  for (const [first, end, sha256] of vectors("code_points").blocks) {
    const ids = Array.from({ length: end - first }, (_, i) => {
      const character = String.fromCodePoint(first + i);
      return tokenizer.encode(`a${character}B ${character}Σ${character}1`);
    });
    const actual = createHash("sha256").update(JSON.stringify(ids)).digest("hex");
    assert.equal(actual, sha256, `code points ${first.toString(16)} to ${(end - 1).toString(16)}`);
  }
});

test("halves of a surrogate pair, apart and joined", () => {
  assert.deepEqual(tokenizer.encode("\ud83d" + "\udc26"), tokenizer.encode("🐦"));
  assert.deepEqual(tokenizer.encode("\udc26\ud83d"), tokenizer.encode("\ufffd\ufffd"));
});

test("a prompt of 100,000 characters is read, also if each takes two units of UTF-16", () => {
  for (const piece of ["a", "é", "Ã©", "🐦", "&amp;", "e\u0301", "\n", "\ud800", "\x1b["]) {
    const text = piece.repeat(Math.floor(MAX_PROMPT_LENGTH / [...piece].length));
    const ids = tokenizer.encode(text);
    assert.ok(ids.length >= 2 && ids.length <= context, piece);
  }
});

test("a longer prompt is refused", () => {
  for (const length of [MAX_PROMPT_LENGTH + 1, 2 ** 20]) {
    assert.throws(
      () => tokenizer.encode("a".repeat(length)),
      (error) => error instanceof UsageError && error.message.includes("100,000"),
    );
  }
});

test("a character reference of thousands of digits is refused, as in Python", () => {
  assert.throws(() => tokenizer.encode(`&#${"9".repeat(4301)};`), UsageError);
  assert.ok(tokenizer.encode(`&#${"9".repeat(4300)};`));
});

test("what is left out of a prompt that is cut", () => {
  const small = new Tokenizer("", 6); // four bytes
  assert.equal(small.leftOut("ab cd"), "");
  assert.equal(small.leftOut("AB cd  e"), "e");
  assert.equal(small.leftOut("ab cde f"), "cde f");
});

test("rows are padded to a multiple of eight, at most the context's length", () => {
  assert.deepEqual(padded([[1, 2, 3]], 77).shape, [1, 8]);
  assert.deepEqual(padded([new Array(9).fill(1), [5]], 77).shape, [2, 16]);
  assert.deepEqual(padded([new Array(77).fill(1)], 77).shape, [1, 77]);
  assert.deepEqual([...padded([[1, 2, 3]], 77).data], [1n, 2n, 3n, 0n, 0n, 0n, 0n, 0n]);
});

test("a broken vocabulary is refused", () => {
  for (const text of ["i n\ni n\n", "xy z\n", "i 日\n", "th e\nt h\n", "i\n", "i n x\n", " \n"]) {
    assert.throws(() => new Tokenizer(text, 24), FileRefused, JSON.stringify(text));
  }
});
