"""The contract of RUN/pictures/."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from headstart.report.pictures import MAX_PICTURE_BYTES, MAX_PICTURES, run_pictures
from tests.report.folders import png

FRAME = b"\xff\xc0" + struct.pack(">HBHH", 11, 8, 48, 64) + bytes(4)
JPEG = b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF\x00" + bytes(9) + FRAME + b"\xff\xd9"


def folder(run: Path, **files: bytes) -> Path:
    (run / "pictures").mkdir(parents=True)
    for name, content in files.items():
        (run / "pictures" / name).write_bytes(content)
    return run


def test_of_each_name_the_first_and_the_newest_with_its_caption(tmp_path: Path) -> None:
    names = {f"step-{step:08d}-faces.png": png(shade=step) for step in (10, 20, 30)}
    run = folder(tmp_path, **names, **{"step-00000030-faces.txt": b"before, masked, after", "step-00000030-maps.jpg": JPEG})
    shown, left_out = run_pictures(run)
    assert [(p.step, p.name, p.caption) for p in shown] == [(10, "faces", ""), (30, "faces", "before, masked, after"), (30, "maps", "")]
    assert base64.b64decode(shown[1].uri.removeprefix("data:image/png;base64,")) == png(shade=30)
    assert (shown[0].width, shown[0].height, shown[2].width, shown[2].height) == (96, 64, 64, 48)
    assert left_out == []


def test_what_is_no_picture_too_large_or_elsewhere_is_named_and_left_out(tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes(png())
    run = folder(
        tmp_path / "run",
        **{
            "step-00000001-script.png": b"<svg onload='x'/>",
            "step-00000001-huge.png": png() + bytes(MAX_PICTURE_BYTES),
            "step-00000001-sides.png": png()[:16] + struct.pack(">II", 100_000, 100_000) + png()[24:],
            "other-name.png": png(),
        },
    )
    (run / "pictures" / "step-00000001-link.png").symlink_to(outside)
    shown, left_out = run_pictures(run)
    assert shown == []
    assert len(left_out) == 4
    assert all("step-00000001" in sentence for sentence in left_out)


def test_there_is_an_end_of_pictures(tmp_path: Path) -> None:
    run = folder(tmp_path, **{f"step-00000001-n{number}.png": png() for number in range(30)})
    assert len(run_pictures(run)[0]) == MAX_PICTURES
