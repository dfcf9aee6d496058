"""Readers of prompts: what is written is read, from any place, and what is wrong is named."""

import csv
import io
import json

import pytest
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.sets.prompts import open_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

# no control characters: str.strip and csv have their own ideas of some of them
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40).filter(
    lambda text: text.strip() == text and text
)
LISTS = st.lists(TEXTS, min_size=1, max_size=12)
ENDS = st.sampled_from(["\n", "\r\n"])
MARKS = st.sampled_from([b"", b"\xef\xbb\xbf"])
EVERY = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("prompts")


def check(path, expected):
    """Check prompts, and that reading from each row's place gives the rest."""
    rows = list(open_prompts(path).rows())
    assert [row.prompt for row in rows] == expected
    for number, row in enumerate(rows):
        assert list(open_prompts(path).rows(row.place)) == rows[number:]
    return rows


@EVERY
@given(LISTS, ENDS, MARKS, st.booleans(), st.booleans())
def test_text(folder, prompts, end, mark, has_blank_lines, ends_with_a_line_end):
    lines = [line for prompt in prompts for line in (["  ", prompt, ""] if has_blank_lines else [prompt])]
    text = end.join(lines) + (end if ends_with_a_line_end else "")
    path = folder / "p.txt"
    path.write_bytes(mark + text.encode())
    check(path, prompts)


@EVERY
@given(LISTS, ENDS, MARKS, st.booleans())
def test_json_lines(folder, prompts, end, mark, is_ascii):
    objects = [{"id": n, "prompt": prompt, "seed": n} for n, prompt in enumerate(prompts)]
    path = folder / "p.jsonl"
    path.write_bytes(mark + end.join(json.dumps(each, ensure_ascii=is_ascii) for each in objects).encode())
    rows = check(path, prompts)
    assert [(row.seed, row.id) for row in rows] == [(n, n) for n in range(len(prompts))]


@EVERY
@given(
    st.lists(st.tuples(TEXTS, st.sampled_from(["", "\n", "\r\n", '"', ",", '""\n'])), min_size=1), ENDS, MARKS
)
def test_csv(folder, parts, end, mark):
    """Also prompts with quotes, commas and line ends inside."""
    prompts = [f"{text}{inside}{text}" for text, inside in parts]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(["seed", "Prompt"])
    for number, prompt in enumerate(prompts):
        writer.writerow([number or "", prompt])
    path = folder / "p.csv"
    path.write_bytes(mark + out.getvalue().encode())
    rows = check(path, prompts)
    assert [row.seed for row in rows] == [number or None for number in range(len(prompts))]


@EVERY
@given(LISTS, st.integers(1, 5))
def test_parquet(folder, prompts, per_group):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({
        "other": [b"\xff"] * len(prompts),
        "prompt": prompts,
        "seeds": [[n, n + 1] if n % 2 else None for n in range(len(prompts))],
    })  # fmt: skip
    path = folder / "p.parquet"
    parquet.write_table(table, path, row_group_size=per_group)
    rows = check(path, prompts)
    assert [row.seeds for row in rows] == [(n, n + 1) if n % 2 else None for n in range(len(prompts))]


def test_parquet_with_one_column_of_any_name(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = folder / "one.parquet"
    parquet.write_table(pyarrow.table({"what": ["a", "b"]}), path)
    check(path, ["a", "b"])
    (folder / "broken.parquet").write_bytes(b"PAR1 not quite PAR1")
    with pytest.raises(FileRefused, match=r"broken\.parquet cannot be read as Parquet"):
        list(open_prompts(folder / "broken.parquet").rows())


def test_parquet_with_values_that_python_cannot_have(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    broken = pyarrow.array([b"a", b"a\xff"])
    texts = pyarrow.Array.from_buffers(pyarrow.string(), 2, broken.buffers())
    dates = pyarrow.array([0, 2**31 - 1], pyarrow.date32())
    for name, columns in (("texts", {"prompt": texts}), ("dates", {"prompt": ["a", "b"], "id": dates})):
        path = folder / f"{name}.parquet"
        parquet.write_table(pyarrow.table(columns), path)
        with pytest.raises(FileRefused, match=rf"{name}\.parquet: a value of the rows 0 to 1 cannot be read"):
            list(open_prompts(path).rows())


BAD = {
    "not UTF-8": ("p.txt", b"a\nb\n\xff\n", UsageError, "line 3 is not UTF-8"),
    "UTF-16": ("p.txt", "a".encode("utf-16"), FileRefused, "save it as UTF-8"),
    "a long prompt": (
        "p.txt",
        b"a\n" + b"x" * 100_001,
        UsageError,
        "line 2: prompt 0 has 100,001 characters",
    ),
    "an endless line": ("p.txt", b"x" * (2**24 + 1), UsageError, "line 1 has more than"),
    "NUL": ("p.txt", b"a\0b", UsageError, "line 1: the prompt 'a\\x00b' has a character"),
    "not JSON": ("p.jsonl", b'{"prompt": "a"}\n{', UsageError, "line 2 is not JSON"),
    "deep JSON": ("p.jsonl", b"[" * 100_000, UsageError, "line 1 is not JSON"),
    "no object": ("p.jsonl", b'"a"', UsageError, "line 1 is not an object with a prompt"),
    "no prompt": ("p.jsonl", b'{"a": 1}', UsageError, "line 1 is not an object with a prompt"),
    "a number": ("p.jsonl", b'{"prompt": 1}', UsageError, "line 1: the prompt is not text"),
    "half a pair": ("p.jsonl", b'{"prompt": "\\ud800"}', UsageError, "has a character that is no text"),
    "half a pair in an id": (
        "p.jsonl",
        b'{"prompt": "a", "id": "\\ud800"}',
        UsageError,
        "line 1: the id '\\ud800' has a character that is no text",
    ),
    "seed of another type": ("p.jsonl", b'{"prompt": "a", "seed": 1.5}', UsageError, "line 1: a seed must"),
    "a large seed": ("p.jsonl", b'{"prompt": "a", "seed": 18446744073709551616}', UsageError, "out of range"),
    "seeds twice": ("p.jsonl", b'{"prompt": "a", "seeds": [1, 1]}', UsageError, "each only once"),
    "both": ("p.jsonl", b'{"prompt": "a", "seeds": [1], "seed": 1}', UsageError, "both seed and seeds"),
    "an id": ("p.jsonl", b'{"prompt": "a", "id": []}', UsageError, "the id must be text"),
    "no header": ("p.csv", b"a rose\na car\n", UsageError, "the first line names no column prompt or"),
    "no such column": ("p.csv", b"a,b\n1,2\n", UsageError, "names no column"),
    "a column twice": ("p.csv", b"prompt,seed,prompt\na,1,b\n", UsageError, "2 columns prompt; leave one"),
    "a comma": ("p.csv", b"prompt\na, b\n", UsageError, "line 2 has 2 cells, and the first line names 1 col"),
    "an open quote": ("p.csv", b'prompt\na\n"b\n', UsageError, "line 3 is not CSV"),
    "an empty cell": ("p.csv", b"prompt,seed\n,1\n", UsageError, "line 2: the prompt is empty"),
    "a seed in words": (
        "p.csv",
        b"prompt,seed\na,one\n",
        UsageError,
        "line 2: a seed must be a whole number",
    ),
    "packed": ("p.txt.gz", b"", UsageError, "unpack it first"),
    "another kind": ("p.doc", b"", UsageError, "that end in .txt, .jsonl, .csv, .parquet"),
    "none": ("missing.txt", None, FileRefused, "cannot be read"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(tmp_path, case):
    name, content, kind, expected = BAD[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kind) as caught:
        list(open_prompts(tmp_path / name).rows())
    assert expected in str(caught.value)
    assert name in str(caught.value)
