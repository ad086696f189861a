"""Damage to annotation files and images, drawn at random, for fuzzing."""

import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 7, 1.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 2**31,
    2**63, 10**30, "", "x", "7", "1e3", "nan", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800",
    "a" * 5000, "[bold]x[/bold]\x1b[2J", [], {}, [1, 2, 3, 4], [[]], {"id": 1}, "0011.png",
    "..\\x.png", ".",
]  # fmt: skip
TEXTS = [
    "", " ", "0", "-1", "1", "7", "nan", "inf", "-inf", "1e999", "0x10", "1_0", "é", "\t", "9" * 20,
    "none", "../../x", "/etc/passwd", "a b", "1,5", "<b/>", "&amp;", "&x;", "&#0;", "]]>", "true", "~", "{}",
    "[]", "*a", "&a [x]", "- x", "\u2028", "\x1b[31m",
]  # fmt: skip


def damage_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, change, insert, drop or repeat bytes."""
    out = bytearray(data)
    kind = rng.integers(5)
    at = int(rng.integers(0, len(out) + 1))
    if kind == 0:
        return bytes(out[:at])
    if kind == 1:
        for _ in range(rng.integers(1, 5)):
            out[rng.integers(len(out))] = rng.integers(256)
    elif kind == 2:
        out[at:at] = rng.bytes(int(rng.integers(1, 20)))
    elif kind == 3:
        end = min(len(out), at + int(rng.integers(1, 60)))
        del out[at:end]
    else:
        end = min(len(out), at + int(rng.integers(1, 60)))
        out[at:at] = out[at:end]
    return bytes(out)


def damage_json(data: Any, rng: np.random.Generator) -> Any:
    """Replace, drop, repeat or move one value anywhere."""
    data = json.loads(json.dumps(data))
    at = data
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return data
        key = keys[rng.integers(len(keys))]
        if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.85:
            at = at[key]
            continue
        kind = rng.integers(4)
        if kind == 0:
            del at[key]
        elif kind == 1 and isinstance(at, list):
            at.append(at[key])
        elif kind == 2:
            other = keys[rng.integers(len(keys))]
            at[key], at[other] = at[other], at[key]
        else:
            at[key] = VALUES[rng.integers(len(VALUES))]
        return data


def damage_text(text: str, rng: np.random.Generator) -> str:
    """Replace, drop or repeat a token or a line."""
    kind = rng.integers(4)
    if kind == 0:
        lines = text.splitlines(keepends=True)
        at = int(rng.integers(len(lines)))
        if rng.random() < 0.5:
            del lines[at]
        else:
            lines.insert(int(rng.integers(len(lines))), lines[at])
        return "".join(lines)
    tokens = [match.span() for match in re.finditer(r"[^\s<>:,\[\]{}]+", text)]
    start, end = tokens[rng.integers(len(tokens))]
    new = TEXTS[rng.integers(len(TEXTS))]
    return text[:start] + (new if kind < 3 else f"{text[start:end]} {new}") + text[end:]


def damage_file(path: Path, rng: np.random.Generator) -> None:
    """Damage an annotation file: its bytes, or its values."""
    if rng.random() < 0.35:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
    elif path.suffix == ".json":
        data = json.loads(path.read_text())
        for _ in range(rng.integers(1, 3)):
            data = damage_json(data, rng)
        path.write_text(json.dumps(data))
    else:
        text = path.read_text()
        for _ in range(rng.integers(1, 3)):
            text = damage_text(text, rng) if text.strip() else text
        path.write_text(text, encoding="utf-8", errors="surrogatepass")


def damage_image(path: Path, rng: np.random.Generator) -> None:
    """Replace, remove or damage an image file."""
    kind = rng.integers(6)
    if kind == 0:  # unusual modes and formats, of the right size or another
        size = (
            Image.open(path).size
            if rng.random() < 0.6
            else (int(rng.integers(1, 60)), int(rng.integers(1, 60)))
        )
        mode, suffix = MODES[rng.integers(len(MODES))]
        picture = Image.frombytes("RGBA", size, rng.bytes(4 * size[0] * size[1])).convert("RGB")
        if mode == "I;16":
            picture = Image.fromarray(rng.integers(0, 65536, size[::-1]).astype(np.uint16))
        elif mode == "F":
            values = rng.normal(0, 1e4, size[::-1]).astype(np.float32)
            values.flat[0] = [np.nan, np.inf, -np.inf, 1e38][rng.integers(4)]
            picture = Image.fromarray(values)
        else:
            picture = picture.convert(mode)
        picture.save(path, suffix)
    elif kind == 1:  # a header that claims a larger image
        data = bytearray(path.read_bytes())
        data[16:24] = rng.choice([1, 48, 5000, 65535, 2**31 - 1], 2).astype(">u4").tobytes()
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(bytes(data))
    elif kind == 2:
        path.unlink()
        if rng.random() < 0.5:
            path.mkdir()
    elif kind == 3:  # JPEG, damaged
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").save(buffer, "JPEG")
        path.write_bytes(damage_bytes(buffer.getvalue(), rng))
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))


MODES = [
    ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"),
    ("CMYK", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF"), ("F", "TIFF"), ("I", "TIFF"), ("CMYK", "TIFF"),
    ("P", "GIF"), ("RGB", "BMP"), ("RGBA", "WEBP"), ("RGB", "PPM"), ("RGB", "JPEG2000"), ("L", "JPEG"),
    ("I;16", "TIFF"), ("RGB", "TGA"),
]  # fmt: skip
