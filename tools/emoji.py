"""Draws `diffusion_lib/data/emoji/`: six artists' emoji, as sheets of 64x64 pictures and a table.

    python tools/emoji.py FOLDER       FOLDER holds the packages below, as `npm pack` fetches them

Learners need not run it: the result lies in the repository. It needs `pip install resvg-py` and
about five minutes. What is left out: flags, clocks, letters, arrows and signs, couples and rude
gestures, other skin tones of the same thing, and whatever only one of the six has drawn; then what
`emoji_names.txt` says, which also gives some things better names (why: `emoji_review.md`).
"""

import hashlib
import io
import json
import re
import sys
import tarfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

TOOLS = Path(__file__).resolve().parent
OUT = TOOLS.parent / "diffusion_lib" / "data" / "emoji"
SIZE, COLUMNS = 64, 40
PACKAGES = {  # style: (package of @iconify-json, version, sha256)
    "flat": (
        "fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "soft": (
        "fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    ),
    "noto": (
        "noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    "blob": (
        "noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    ),
    "twemoji": (
        "twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "classic": (
        "emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
}
TONE = re.compile(r"-(light|medium-light|medium|medium-dark|dark)(?=-|$)")
LEFT_OUT = re.compile(
    r"^(flag|keycap|letter|regional|input-|zodiac|squared|up-|down-|left-|right-|upper-|"
    r"leftwards|rightwards|couple|kiss-|kiss$|family|men-holding|women-holding|woman-and-man|"
    r"man-and-woman|people-holding|people-hugging|digit-|number-sign|asterisk|japanese-(?!castle|"
    r"dolls|post)|skin-tone|tone|aries|taurus|gemini|cancer|leo|virgo|libra|scorpi|sagittarius|"
    r"capricorn|aquarius|pisces|ophiuchus|copyright|registered|trade-mark|part-alternation|"
    r"multiply|plus|minus|divide|heavy-|infinity|wavy-dash|curly-loop|double-|no-entry$|a-button|"
    r"b-button|o-button|ab-button|end-|back-|on-arrow|soon-|top-arrow|on-|cl-|cool-|free-|id-|new-|"
    r"ng-|ok-button|sos-|up-button|vs-|white-(?!flower|cane|heart)|black-(?!cat|bird|heart)|"
    r"play-|pause-|stop-|record-|eject-|fast-|next-track|last-track|reverse-|shuffle|repeat|"
    r"trans|male-sign|female-sign|medical-symbol|dollar|pound-b|euro-b|yen-b)|"
    r"o-?clock|-thirty|button|middle-finger|arrow|symbol|-sign$|sign-of|square-?$|-square|"
    r"-rightwards|facing-right|bright|dim-|-mark$|mark-?button|selector"
)
SIGNS = set(  # also left out: signs, and what is no thing by itself
    "antenna-bars baggage-claim check-box-with-check children-crossing circled-m currency-exchange "
    "customs dark diamond-with-a-dot dotted-six-pointed-star eight-pointed-star hundred-points "
    "eight-spoked-asterisk heart-decoration hollow-red-circle information khanda latin-cross light "
    "medium menorah mens-room mobile-phone-off no-bicycles no-littering no-mobile-phones no-smoking "
    "no-one-under-eighteen no-pedestrians non-potable-water om orthodox-cross passport-control "
    "potable-water prohibited rainbow-flag red-triangle restroom star-and-crescent star-of-david "
    "transgender-flag unknown-flag vibration-mode water-closet wheel-of-dharma wireless womens-room "
    "yin-yang place-of-worship trident-emblem chess-pawn flower-playing-cards landslide "
    "mahjong-red-dragon".split()
)
SAME = {  # names that no alias joins
    "piata": "pinata",
    "phoenix-bird": "phoenix",
    "blackbird": "black-bird",
    "man-blond-hair": "man-blonde-hair",
    "woman-blond-hair": "woman-blonde-hair",
    "mans-shoe": "leather-shoe",
}
KEPT = {"white-heart", "black-heart", "stop-sign", "kiss-mark", "heavy-heart-exclamation"}


def read(folder: Path) -> dict[str, dict]:
    """The icons of each style, from packages whose checksums are right."""
    found = {}
    for style, (package, version, digest) in PACKAGES.items():
        path = folder / f"iconify-json-{package}-{version}.tgz"
        if not path.is_file():
            sys.exit(f"there is no {path}: npm pack @iconify-json/{package}@{version}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            sys.exit(f"{path} is not the file that this was written for: its sha256 is another")
        with tarfile.open(path) as archive:
            found[style] = json.load(archive.extractfile("package/icons.json"))
    return found


def plain(name: str) -> str | None:
    """A thing's name; None for another skin tone of it."""
    name = name.replace("-skin-tone", "")
    return None if TONE.search(name) else SAME.get(name, name)


def one_name(packages: dict[str, dict]) -> dict[str, str]:
    """{every name that a package or its aliases use: the one that most packages draw it under}."""
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while group.setdefault(name, name) != name:
            name = group[name]
        return name

    uses = Counter()
    for icons in packages.values():
        uses.update({plain(name) for name in icons["icons"]} - {None})
        for alias, about in icons.get("aliases", {}).items():
            a, b = plain(alias), plain(about["parent"])
            if a and b and set(about) == {"parent"}:  # not one that is mirrored
                group[root(a)] = root(b)
    members = defaultdict(list)
    for name in uses:
        members[root(name)].append(name)
    best = {r: min(names, key=lambda n: (-uses[n], len(n), n)) for r, names in members.items()}
    return {name: best[root(name)] for name in uses}


def looked_through() -> tuple[set[str], dict[str, str]]:
    """What emoji_names.txt leaves out, {"thing", "thing/style"}, and what it calls otherwise."""
    out, called = set(), {}
    for line in (TOOLS / "emoji_names.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("- "):
            out.add(line[2:])
        elif " = " in line:
            name, other = line.split(" = ")
            called[name] = other
    return out, called


def draw(icons: dict, name: str) -> np.ndarray:
    """A picture (64, 64, 4): straight colours and alpha."""
    import resvg_py

    about = icons["icons"][name]
    left, top = about.get("left", 0), about.get("top", 0)
    width = about.get("width", icons.get("width", 16))
    height = about.get("height", icons.get("height", 16))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{about["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE))
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    sheet = Image.new("RGBA", (SIZE, SIZE))
    sheet.paste(picture, ((SIZE - picture.width) // 2, (SIZE - picture.height) // 2))
    return np.array(sheet)


def main() -> None:
    packages = read(Path(sys.argv[1]))
    names = one_name(packages)
    out, called = looked_through()
    table: dict[str, dict[str, str]] = defaultdict(dict)  # thing -> style -> the package's name
    for style, icons in packages.items():
        for name, about in icons["icons"].items():
            thing = names.get(plain(name) or "")
            wanted = thing in KEPT or thing and not (thing in SIGNS or LEFT_OUT.search(thing))
            if wanted and not about.get("hidden") and not {thing, f"{thing}/{style}"} & out:
                table[called.get(thing, thing)].setdefault(style, name)
    table = {thing: drawn for thing, drawn in sorted(table.items()) if len(drawn) >= 2}
    if "--names" in sys.argv:
        print("\n".join(f"{thing}\t{len(drawn)}" for thing, drawn in table.items()))
        return
    OUT.mkdir(exist_ok=True)
    for style, icons in packages.items():
        its = [drawn[style] for drawn in table.values() if style in drawn]
        pictures = [draw(icons, name) for name in tqdm(its, desc=style)]
        rows = -(-len(pictures) // COLUMNS)
        sheet = np.zeros((rows * SIZE, COLUMNS * SIZE, 4), np.uint8)
        for i, picture in enumerate(pictures):
            picture[picture[..., 3] == 0] = 0  # what nobody sees costs nothing
            y, x = i // COLUMNS * SIZE, i % COLUMNS * SIZE
            sheet[y : y + SIZE, x : x + SIZE] = picture
        path = OUT / f"{style}.webp"
        Image.fromarray(sheet).save(path, lossless=True, quality=100, method=6)
        print(f"{path.name}: {len(pictures)} pictures, {path.stat().st_size / 1e6:.1f} MB")
    lines = [f"{thing}\t{' '.join(drawn)}" for thing, drawn in table.items()]
    (OUT / "things.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    counts = Counter(len(drawn) for drawn in table.values())
    print(f"{len(table)} things in as many styles as {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
