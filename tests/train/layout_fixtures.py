"""Writes a tiny set of each layout, as people have them: `python tests/train/layout_fixtures.py FOLDER`.

Every picture is a coloured disc on white whose captions say its colour; sizes and aspects differ.
"""

import io
import json
import pickle
import sys
import tarfile
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = ["red", "green", "blue", "orange", "purple", "brown", "black", "grey"]
SIZES = [(48, 40), (40, 48), (64, 64), (57, 33), (40, 40), (90, 30), (33, 57), (44, 44)]


def colour(number):
    return COLOURS[number % len(COLOURS)]


def picture(number, mode="RGB"):
    """A disc of the number's colour."""
    width, height = SIZES[number % len(SIZES)]
    drawn = Image.new("RGB", (width, height), "white")
    radius = min(width, height) // 2 - 4
    x, y = width // 2, height // 2
    ImageDraw.Draw(drawn).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(number))
    return drawn.convert(mode)


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def captions(number, count, thing="disc"):
    forms = ["a {} {}", "{} {} on white", "one {} {}", "a picture of a {} {}", "this {} {} is round"]
    return [f"{forms[i % 5].format(colour(number), thing)}{' again' * (i // 5)}" for i in range(count)]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


BIRDS = [
    f"{folder}/{folder.split('.')[1]}_{number:04}_{1000 + number}"
    for folder in ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
    for number in range(4)
]


def write_cub(root, text="text"):
    """12 birds of 3 kinds with boxes and ten captions each; each kind half in train, half in test."""
    cub = root / "CUB_200_2011"
    images, sides, boxes = [], [], []
    for index, key in enumerate(BIRDS):
        drawn = picture(index)
        write(cub / "images" / f"{key}.jpg", encoded(drawn))
        write(root / text / f"{key}.txt", "\n".join(captions(index, 10, "bird")) + "\n")
        images.append(f"{index + 1} {key}.jpg\n")
        sides.append(f"{index + 1} {index % 2}\n")
        x, y = drawn.width / 4, drawn.height / 4
        boxes.append(f"{index + 1} {x} {y} {2 * x} {2 * y}\n")
    write(cub / "images.txt", "".join(images))
    write(cub / "train_test_split.txt", "".join(sides))
    write(cub / "bounding_boxes.txt", "".join(boxes))
    return root


def write_coco(root):
    """6 pictures in train2014, 3 in val2014, five captions each, one annotation a line as in the original."""
    for split, first, count in (("train", 0, 6), ("val", 6, 3)):
        images, annotations = [], []
        for index in range(first, first + count):
            name = f"COCO_{split}2014_{100 + index:012}.jpg"
            drawn = picture(index)
            write(root / f"{split}2014" / name, encoded(drawn))
            images.append(
                {"id": 100 + index, "file_name": name, "height": drawn.height, "width": drawn.width}
            )
            annotations += [
                {"image_id": 100 + index, "id": 10 * index + i, "caption": caption}
                for i, caption in enumerate(captions(index, 5))
            ]
        document = {"info": {"year": 2014}, "images": images, "licenses": [], "annotations": annotations}
        write(root / "annotations" / f"captions_{split}2014.json", json.dumps(document))
    return root


def write_dfgan_birds(root):
    """As DF-GAN's birds: CUB's pictures, split by kind, Python 2's pickles."""
    write_cub(root)
    write(root / "train" / "filenames.pickle", pickle.dumps(BIRDS[:8], protocol=0))
    write(root / "test" / "filenames.pickle", pickle.dumps(BIRDS[8:], protocol=2))
    return root


def write_dfgan_coco(root):
    """As DF-GAN's COCO."""
    for split, year, first, count in (("train", "train2014", 0, 5), ("test", "val2014", 5, 3)):
        keys = [f"COCO_{year}_{index:012}" for index in range(first, first + count)]
        for index, key in enumerate(keys, first):
            write(root / "images" / year / "jpg" / f"{key}.jpg", encoded(picture(index)))
            write(root / "text" / f"{key}.txt", "\n".join(captions(index, 5)))
        write(root / split / "filenames.pickle", pickle.dumps(keys))
    return root


def write_dfgan_cc3m(root):
    """As GALIP's CC3M: keys NUMBER_HASH, captions by number and split."""
    for split, first, count in (("train", 0, 5), ("test", 5, 3)):
        keys = [f"{index}_{index * 7919:08x}" for index in range(first, first + count)]
        for index, key in enumerate(keys, first):
            write(root / "images" / split / f"{key}.jpg", encoded(picture(index)))
            write(root / "text" / split / f"{index}.txt", captions(index, 1)[0])
        write(root / split / "filenames.pickle", pickle.dumps(keys))
    return root


def write_dfgan_cc12m(root):
    """As GALIP's CC12M: all pictures in one folder."""
    keys = [f"{index}_{index * 7919:08x}" for index in range(6)]
    for index, key in enumerate(keys):
        write(root / "images" / f"{key}.jpg", encoded(picture(index)))
        write(root / "text" / f"{index}.txt", captions(index, 1)[0])
    write(root / "train" / "filenames.pickle", pickle.dumps(keys))
    return root


def write_tar(path, members):
    """A tar of (name, content) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(root, shards=3, per_shard=5):
    """As img2dataset writes them: 00000.tar, its statistics, and a parquet file's name beside."""
    for shard in range(shards):
        members = []
        for place in range(per_shard):
            index = shard * per_shard + place
            key, caption = f"{shard:05}{place:04}", f"{captions(index, 1)[0]} number {index}"
            drawn = picture(index)
            meta = {
                "caption": caption, "url": f"https://pictures.example/{index}.jpg", "key": key,
                "status": "success", "error_message": None, "width": drawn.width, "height": drawn.height,
                "original_width": 2 * drawn.width, "original_height": 2 * drawn.height, "exif": "{}",
            }  # fmt: skip
            content = [encoded(drawn), caption.encode(), json.dumps(meta, indent=4).encode()]
            members += zip((f"{key}.jpg", f"{key}.txt", f"{key}.json"), content, strict=True)
        write_tar(root / f"{shard:05}.tar", members)
        stats = {
            "count": per_shard + 1,
            "successes": per_shard,
            "failed_to_download": 1,
            "failed_to_resize": 0,
        }
        write(root / f"{shard:05}_stats.json", json.dumps(stats, indent=4))
        write(root / f"{shard:05}.parquet", b"PAR1 not read PAR1")
    return root


def write_folder(root):
    """Pictures at two depths, all four endings, captions in text files; splits train and val."""
    for index, name in enumerate(["a.png", "b.JPG", "sub/Bär 🍎.webp", "sub/deep/d.jpeg", "e.png"]):
        kind = {"png": "PNG", "webp": "WEBP"}.get(name.rsplit(".", 1)[1], "JPEG")
        split = "train" if index < 4 else "val"
        write(root / split / name, encoded(picture(index), kind))
        lines = [*captions(index, 2), "", "ein grüner Bär 🐻"]
        write((root / split / name).with_suffix(".txt"), "\r\n".join(lines) + "\r\n")
    return root


def write_folder_table(root):
    """Captions in captions.jsonl, all forms of a line; no splits."""
    lines = [
        {"file": "a.png", "captions": captions(0, 3), "source": "drawn"},
        {"file": "sub/b.png", "caption": captions(1, 1)[0]},
        {"file_name": "sub/ü.png", "text": captions(2, 1)[0]},
    ]
    for index, line in enumerate(lines):
        write(root / line.get("file", line.get("file_name")), encoded(picture(index), "PNG"))
    write(root / "captions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return root


WRITERS = {
    "cub": write_cub,
    "coco": write_coco,
    "dfgan_birds": write_dfgan_birds,
    "dfgan_coco": write_dfgan_coco,
    "dfgan_cc3m": write_dfgan_cc3m,
    "dfgan_cc12m": write_dfgan_cc12m,
    "shards": write_shards,
    "folder": write_folder,
    "folder_table": write_folder_table,
}

if __name__ == "__main__":
    for name, writer in WRITERS.items():
        print(writer(Path(sys.argv[1]) / name))
