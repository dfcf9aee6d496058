"""The page with a bundle: what is written, and what is refused."""

import json
import re
import shutil

import galip_export.web
import pytest
from error_checks import expect_error
from galip_export.web import check_site, write_site
from galip_runtime.bundle.manifest import read_manifest
from galip_runtime.errors import FileRefused, UsageError
from runtime.stub_bundle import make_stub_bundle


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page of two files in place of the built one."""
    folder = tmp_path / "page"
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "onnxruntime" / "ort.mjs").write_text("export {};")
    monkeypatch.setattr(galip_export.web, "PAGE", folder)
    return folder


@pytest.fixture
def bundle(tmp_path):
    return make_stub_bundle(tmp_path / "a bundle")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_page_with_the_bundle_and_no_other_files(page, bundle, tmp_path):
    (bundle / "unlisted").write_text("not the bundle's")
    size = write_site(bundle, tmp_path / "sites" / "one")
    written = contents(tmp_path / "sites" / "one")
    listed = {f"bundle/{name}": data for name, data in contents(bundle).items() if name != "unlisted"}
    names = written.pop("galip-page.txt").decode().splitlines()
    assert names == sorted(written)
    assert written == contents(page) | listed
    assert size == sum(path.stat().st_size for path in (tmp_path / "sites").rglob("*") if path.is_file())
    assert [path.name for path in (tmp_path / "sites").iterdir()] == ["one"]


def test_an_earlier_one_is_replaced_if_that_is_allowed(page, bundle, tmp_path):
    out = tmp_path / "site"
    (page / "of an older page").touch()
    write_site(bundle, out)
    (page / "of an older page").unlink()
    with expect_error(UsageError, "--overwrite"):
        write_site(bundle, out)
    assert (out / "of an older page").exists()
    write_site(bundle, out, overwrite=True)
    assert not (out / "of an older page").exists()
    assert [path.name for path in tmp_path.glob(".galip*")] == []


def test_files_that_a_user_added_are_not_lost(page, bundle, tmp_path):
    out = tmp_path / "site"
    write_site(bundle, out)
    (out / "bundle" / "my notes.txt").write_text("mine")
    with expect_error(UsageError, out, "bundle/my notes.txt"):
        write_site(bundle, out, overwrite=True)
    assert (out / "bundle" / "my notes.txt").read_text() == "mine"


def test_what_a_user_wrote_of_the_model_stays_unless_the_model_changes(page, bundle, tmp_path):
    (page / "known.json").write_text('{"source": "another"}')
    out = tmp_path / "site"
    write_site(bundle, out)
    mine = json.dumps({"source": read_manifest(bundle).source.sha256, "things": ["a cat"], "styles": []})
    (out / "known.json").write_text(mine)
    write_site(bundle, out, overwrite=True)
    assert (out / "known.json").read_text() == mine
    for other in ('{"source": "of another model"}', "no JSON", "[]"):
        (out / "known.json").write_text(other)
        write_site(bundle, out, overwrite=True)
        assert (out / "known.json").read_text() == '{"source": "another"}'
        (out / "known.json").write_text(mine)


def test_other_folders_are_not_replaced(page, bundle, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").touch()
    for name in ("file", "mine"):
        with pytest.raises(UsageError, match=name):
            write_site(bundle, tmp_path / name, overwrite=True)
    with pytest.raises(UsageError, match="a bundle"):
        write_site(bundle, bundle, overwrite=True)
    (tmp_path / "empty").mkdir()
    write_site(bundle, tmp_path / "empty")


def test_a_damaged_bundle_is_refused_and_nothing_is_left(page, bundle, tmp_path):
    graph = next(bundle.glob("generator*.onnx"))
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(FileRefused, match=re.escape(graph.name)):
        write_site(bundle, tmp_path / "sites" / "one")
    assert list((tmp_path / "sites").iterdir()) == []


def test_a_precision_that_no_browser_computes_in(page, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(galip_export.web, "BROWSER_PRECISIONS", ("w16a32",))
    with pytest.raises(UsageError, match=r"fp32.*w16a32"):
        write_site(bundle, tmp_path / "site")


def test_without_the_page_it_says_how_to_build_it(page, tmp_path):
    shutil.rmtree(page)
    with pytest.raises(UsageError, match="make web-page"):
        check_site(tmp_path / "site", overwrite=False)
