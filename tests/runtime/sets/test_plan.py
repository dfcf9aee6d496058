"""The plan: pictures, seeds and shards."""

import pytest
from galip_runtime.errors import FileRefused, UsageError
from galip_runtime.sets import SetOptions, parse_seeds
from galip_runtime.sets.plan import ShardIndex, check_plan, pictures_from, read_shard
from galip_runtime.sets.prompts import open_prompts
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


def options(folder, lines, name="p.jsonl", **changes):
    (folder / name).write_text("\n".join(lines))
    return SetOptions(prompts=folder / name, out=folder / "out", **changes)


PROMPTS = st.lists(
    st.sampled_from(
        ['{"prompt": "a"}', "", '{"prompt": "b", "seed": 7}', '{"prompt": "c", "seeds": [3, 1, 2]}']
    ),
    min_size=1,
    max_size=30,
).filter(any)


@settings(max_examples=80, deadline=None)
@given(PROMPTS, st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**60))
def test_shards_are_the_pictures_in_order(folder, lines, shard_size, count, seed):
    if count > 1:
        lines = [line.replace('"seeds": [3, 1, 2]', '"seed": 9') for line in lines]
    chosen = options(folder, lines, shard_size=shard_size, count=count, seed=seed)
    source = open_prompts(chosen.prompts)
    pictures = list(pictures_from(source, chosen))
    index = ShardIndex.scan(source, chosen)
    assert (index.pictures, index.prompts) == (len(pictures), sum(1 for line in lines if line))
    shards = [list(read_shard(source, chosen, index[number])) for number in range(len(index))]
    assert [picture for shard in shards for picture in shard] == pictures
    assert [len(shard) for shard in shards[:-1]] == [shard_size] * (len(shards) - 1)
    assert [picture.number for picture in pictures] == list(range(len(pictures)))


def test_seeds(folder):
    lines = ['{"prompt": "a"}', '{"prompt": "b", "seed": 100}', '{"prompt": "c"}']

    def seeds(**changes):
        chosen = options(folder, lines, **changes)
        return [picture.seed for picture in pictures_from(open_prompts(chosen.prompts), chosen)]

    assert seeds() == [0, 100, 2]
    assert seeds(seed=5, count=2) == [5, 6, 100, 101, 9, 10]
    with pytest.raises(UsageError, match="seeds of their own"):
        seeds(seeds=(1, 2))
    with pytest.raises(UsageError, match="the largest is"):
        seeds(seed=2**64 - 2)
    lines = ['{"prompt": "a"}', '{"prompt": "b"}']
    assert seeds(seeds=(4, 2)) == [4, 2, 4, 2]
    lines = ['{"prompt": "a", "seeds": [1, 2]}']
    assert seeds() == [1, 2]
    with pytest.raises(UsageError, match="leave out count"):
        seeds(count=3)


def test_seeds_of_a_command_line():
    assert parse_seeds(None) is None
    assert parse_seeds("1,2,3") == (1, 2, 3)
    assert parse_seeds("1-4, 9") == (1, 2, 3, 4, 9)
    assert parse_seeds("18446744073709551615") == (2**64 - 1,)
    for text in ("", "a", "1-", "-1", "4-1", "1..3", "0-1000000", "١"):
        with pytest.raises(UsageError, match="seeds"):
            parse_seeds(text)


def test_options_are_checked(folder):
    for changes, expected in (
        ({"count": 0}, "count must be"),
        ({"shard_size": 0}, "shard size must be"),
        ({"seed": -1}, "seed must be"),
        ({"seeds": (2**64,)}, "each of the seeds must be"),
        ({"seeds": (1, 1)}, "each only once"),
        ({"seeds": (1,), "count": 2}, "give seeds alone"),
        ({"format": "gif"}, "use one of png, jpeg, webp"),
        ({"layout": "zip"}, "use one of webdataset, folder"),
        ({"workers": 0}, "workers must be"),
        ({"workers": 2, "ray": "auto"}, "give workers or ray"),
    ):
        with pytest.raises(UsageError, match=expected):
            options(folder, [], **changes)


def test_a_file_that_changes_is_noticed(folder):
    chosen = options(folder, ["a", "b", "c", "d"], "p.txt", shard_size=2)
    source = open_prompts(chosen.prompts)
    index = ShardIndex.scan(source, chosen)
    chosen.prompts.write_text("a\nb\nc\nx")
    assert len(list(read_shard(source, chosen, index[0]))) == 2
    with pytest.raises(FileRefused, match="is not what it was when the set was planned"):
        list(read_shard(source, chosen, index[1]))
    chosen.prompts.write_text("a\nb\nc")
    with pytest.raises(FileRefused, match="is not what it was"):
        list(read_shard(source, chosen, index[1]))


def test_no_prompts(folder):
    chosen = options(folder, ["", " "], "p.txt")
    with pytest.raises(UsageError, match="has no prompts"):
        ShardIndex.scan(open_prompts(chosen.prompts), chosen)


def test_the_record_says_what_differs(tmp_path):
    plan = {"count": 1, "prompts": {"name": "a", "sha256": "0"}, "versions": {"x": "1"}}
    assert check_plan(tmp_path, plan) is False
    assert check_plan(tmp_path, plan) is True
    renamed = {**plan, "prompts": {"name": "b", "sha256": "0"}, "versions": {"x": "2", "y": "1"}}
    assert check_plan(tmp_path, renamed) is True
    with pytest.raises(UsageError) as caught:
        check_plan(tmp_path, {**plan, "count": 2, "prompts": {"name": "a", "sha256": "1"}})
    assert caught.value.args[1:] == ("count: 1 there, 2 now", "prompts.sha256: '0' there, '1' now")
    for content in ("{", "[]", ""):
        (tmp_path / "set.json").write_text(content)
        with pytest.raises(FileRefused, match=r"set\.json is not"):
            check_plan(tmp_path, plan)
