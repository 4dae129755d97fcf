import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from e2eft.tasks import label_codec
from e2eft.views.colour import colour_depth, colour_normals
from e2eft.views.gallery import (
    GalleryCard,
    GalleryFigure,
    GalleryLedger,
    GalleryRejection,
    pack_values,
    write_gallery,
)

H, W = 60, 80
ACROSS = np.broadcast_to(np.linspace(0, 255, W), (H, W))
IMAGE = np.dstack([ACROSS, ACROSS[:, ::-1], np.full((H, W), 90)]).astype(np.uint8)
DEPTH = np.random.default_rng(2).uniform(0, 1, (H, W)).astype(np.float32)
DEPTH[0, :3] = np.nan, np.inf, 0
DEPTH[1, 0] = 1
NORMALS = np.broadcast_to(np.array([0, -0.6, -0.8], np.float32), (H, W, 3))

VOID = {"meta", "img", "input", "br", "link"}
HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(2)>{{cards}}&amp;</title>"""


class Page(HTMLParser):
    """Elements in order, text by element, and a check that tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        """Attributes of the elements `tag` of class `kind`."""
        return [a for t, a in self.elements if t == tag and kind in ("", a.get("class"))]

    def texts(self, tag: str) -> list[str]:
        return [text for t, text in self.text if t == tag]


def picture(uri: str) -> Image.Image:
    head, _, body = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
    assert image.format is not None and head == f"data:image/{image.format.lower()}"
    return image


def gallery(
    *cards: GalleryCard, rejections: list[GalleryRejection] | None = None, **options: Any
) -> Page:
    return Page(write_gallery("A title", {"model": "m/7"}, cards, rejections or [], **options))


def card(
    key: str = "a.jpg",
    depth: np.ndarray | None = DEPTH,
    normals: np.ndarray | None = NORMALS,
    **fields: Any,
) -> GalleryCard:
    figures = [
        label_codec(task).figure(label)
        for task, label in (("depth", depth), ("normals", normals))
        if label is not None
    ]
    return GalleryCard(key=key, **{"image": IMAGE, "figures": figures, **fields})


def stages(page: Page) -> list[dict[str, str]]:
    return page.all("div", "stage")


def codes_in(stage: dict[str, str]) -> np.ndarray:
    probe = picture(stage["data-probe"])
    assert probe.format == "PNG" and probe.mode == "RGB" and not probe.info
    red, green, blue = np.moveaxis(np.asarray(probe).astype(int), -1, 0)
    assert (blue == 0).all()
    return red * 256 + green


def test_the_page_carries_the_depth_in_sixteen_bits() -> None:
    codes = codes_in(stages(gallery(card()))[0])
    assert codes.shape == (H, W)
    assert (codes[np.isnan(DEPTH)] == 0).all() and (codes[np.isposinf(DEPTH)] == 65535).all()
    known = np.isfinite(DEPTH)
    assert np.abs((codes[known] - 1) / 65533 - DEPTH[known]).max() <= 0.5 / 65533 + 1e-9
    assert codes[0, 2] == 1 and codes[1, 0] == 65534


@settings(deadline=None)
@given(npst.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32) | st.just(np.nan)))
def test_codes_keep_order_and_the_unknown(depth: np.ndarray) -> None:
    high, low, _ = np.moveaxis(pack_values(depth).astype(int), -1, 0)
    codes = high * 256 + low
    assert ((codes == 0) == np.isnan(depth)).all()
    known = np.isfinite(depth)
    order = np.argsort(depth[known], kind="stable")
    assert (np.diff(codes[known][order]) >= 0).all()
    assert ((codes[known] >= 1) & (codes[known] <= 65534)).all()


def test_a_smaller_probe_picks_values_and_averages_none() -> None:
    depth = np.random.default_rng(0).choice([0, 1, np.nan], (400, 300)).astype(np.float32)
    wide = card(image=np.zeros((400, 300, 3), np.uint8), depth=depth, normals=None)
    codes = codes_in(stages(gallery(wide, probe_side_px=100))[0])
    assert codes.shape == (100, 75)
    assert set(np.unique(codes)) == {0, 1, 65534}
    middles = depth[2::4, 2::4]  # of the blocks of 4 x 4 pixels
    assert (codes == np.where(np.isnan(middles), 0, 1 + 65533 * middles)).all()


def test_the_script_decodes_by_the_same_numbers() -> None:
    script = "".join(gallery(card()).texts("script"))
    assert "INVALID = 0, SKY = 65535, SPAN = 65533" in script
    assert "bytes[4 * i] * 256 + bytes[4 * i + 1]" in script


def test_pictures_show_the_labels() -> None:
    page = gallery(card(depth=np.where(ACROSS > 128, 0.9, 0.1)))
    before, depth, normals = (np.asarray(picture(a["src"])).astype(int) for a in page.all("img"))
    assert np.abs(before - IMAGE).mean() < 6  # WebP is lossy
    assert np.abs(depth - colour_depth(np.where(ACROSS > 128, 0.9, 0.1), near=0, far=1)).mean() < 6
    assert np.abs(normals - colour_normals(NORMALS)).mean() < 6


def test_colours_stand_for_the_same_depth_on_every_card() -> None:
    page = gallery(card(depth=np.full((H, W), 0.2)), card(depth=np.full((H, W), 0.8)))
    near, far = (
        np.asarray(picture(a["src"]))[30, 40].astype(int) for a in page.all("img", "after")[::2]
    )
    assert np.abs(near - (244, 109, 67)).max() < 12  # the third and the ninth of eleven colours
    assert np.abs(far - (102, 194, 165)).max() < 12


def test_pictures_are_shrunk_but_never_grown() -> None:
    sizes = [picture(a["src"]).size for a in gallery(card(), max_side_px=40).all("img")]
    assert sizes == [(40, 30)] * 3
    assert picture(gallery(card()).all("img")[0]["src"]).size == (W, H)
    sliver = card(image=IMAGE[:1], depth=DEPTH[:1], normals=None)
    assert picture(gallery(sliver, max_side_px=16).all("img")[0]["src"]).size == (16, 1)


def test_the_image_is_carried_once_a_card() -> None:
    page = gallery(card(), card(normals=None), card(depth=None), card(depth=None, normals=None))
    assert len(page.all("img", "before")) == 4
    assert len(page.all("img", "after")) == 4
    assert [s.get("data-label") for s in stages(page)] == [
        "depth",
        "normals",
        "depth",
        "normals",
        None,
    ]
    assert ["data-probe" in s for s in stages(page)] == [True, False, True, False, False]


def test_the_page_reaches_for_nothing_outside_itself() -> None:
    source = write_gallery("t", {}, [card()], [])
    page = Page(source)
    links = [
        v for _, a in page.elements for k, v in a.items() if k in ("src", "href", "data-probe")
    ]
    links += re.findall(r"url\((?!#)[\"']?([^)\"']*)", source)
    assert len(links) == 6 and all(link.startswith("data:image/") for link in links)
    assert set(re.findall(r"https?://[^ '\"]*", source)) <= {"http://www.w3.org/2000/svg"}
    assert not page.all("link") and "@import" not in source


def test_the_policy_lets_only_the_one_script_run() -> None:
    page = gallery(card(HOSTILE))
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    (script,) = page.texts("script")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert not [name for _, a in page.elements for name in a if name.startswith("on")]


def test_no_string_of_a_user_becomes_markup() -> None:
    hostile = card(HOSTILE, scores={HOSTILE: 0.5}, note=HOSTILE)
    rejection = GalleryRejection(key=HOSTILE, reason=HOSTILE, detail=HOSTILE)
    page = Page(write_gallery(HOSTILE, {HOSTILE: HOSTILE}, [hostile], [rejection]))
    plain = Page(
        write_gallery("t", {"a": "b"}, [card(scores={"s": 0.5}, note="n")],
                      [GalleryRejection(key="k", reason="r", detail="d")])
    )  # fmt: skip
    assert [t for t, _ in page.elements] == [t for t, _ in plain.elements]
    (article,) = page.all("article")
    assert article["data-key"] == HOSTILE
    assert json.loads(article["data-scores"]) == {HOSTILE: 0.5}
    assert sum(a.get("value") == HOSTILE for a in page.all("option")) == 2
    for tag, times in {"title": 1, "h1": 1, "td": 1, "bdi": 2, "dt": 1, "summary": 1}.items():
        assert sum(text.strip() == HOSTILE for text in page.texts(tag)) == times, tag


def test_names_that_are_not_text_can_be_written() -> None:
    page = write_gallery(
        "t", {}, [card("a\udc80b.jpg")], [GalleryRejection(key="\ud800", reason="r")]
    )
    assert "a\\udc80b.jpg" in page
    assert Page(page.encode("utf-8").decode("utf-8")).all("article")


def test_scores_are_numbers_or_missing() -> None:
    page = gallery(
        card(scores={"error": 0.123456, "bad": float("nan")}), card(scores={"worse": float("inf")})
    )
    scores = [json.loads(a["data-scores"], parse_constant=pytest.fail) for a in page.all("article")]
    assert scores == [{"error": 0.123456}, {}]
    assert page.texts("dd") == ["0.1235", "none", "none"]
    options = [a["value"] for a in page.all("option")]
    assert [options.count(name) for name in ("error", "bad", "worse")] == [2, 2, 2]


def counts(page: Page) -> list[str]:
    return page.texts("b")[:3]


def test_the_ledger_counts_what_is_given() -> None:
    rejections = [GalleryRejection(key=str(i), reason="too_small") for i in range(3)]
    rejections.append(GalleryRejection(key="x", reason="truncated", detail="23 bytes short"))
    page = gallery(card(), card(), card(note="greyscale"), rejections=rejections)
    assert counts(page) == ["2", "1", "4"]
    assert "7 images, 3 shown below" in page.texts("p")
    assert page.texts("summary") == ["too_small ", "truncated "]
    assert [a["data-degraded"] for a in page.all("article")] == ["0", "0", "1"]
    assert page.texts("span").count("23 bytes short") == 1


def test_the_ledger_of_a_run_is_larger_than_its_sample() -> None:
    ledger = GalleryLedger(ok=1200, degraded={"cmyk": 5, "alpha": 7}, rejected={"truncated": 40})
    few = [GalleryRejection(key="x.jpg", reason="truncated")]
    page = gallery(card(), rejections=few, ledger=ledger)
    assert counts(page) == ["1,200", "12", "40"]
    assert "1,252 images, 1 shown below" in page.texts("p")
    assert "and 39 more" in page.texts("li")
    assert page.texts("th").index("alpha") < page.texts("th").index("cmyk")


def test_a_reason_lists_no_more_than_one_can_read() -> None:
    many = [GalleryRejection(key=f"{i}.jpg", reason="truncated") for i in range(1000)]
    page = gallery(rejections=many)
    assert len(page.texts("bdi")) == 200 and "and 800 more" in page.texts("li")


def test_a_histogram_stands_where_the_depths_are() -> None:
    depth = np.full((H, W), 0.25, np.float32)
    depth[:, : W // 2] = np.nan
    (path,) = gallery(card(depth=depth)).all("path")
    tops = [float(v) for v in re.findall(r"V([\d.]+)h1", path["d"])]
    assert len(tops) == 64 and [i for i, top in enumerate(tops) if top < 20] == [16]
    (empty,) = gallery(card(depth=np.full((H, W), np.nan))).all("path")
    assert set(re.findall(r"V([\d.]+)h1", empty["d"])) == {"20.0"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": IMAGE.astype(np.float32)}, r"'a.jpg': image is float32 \(60, 80, 3\)"),
        ({"image": IMAGE[..., 0]}, r"'a.jpg': image is uint8 \(60, 80\)"),
        (
            {"depth": DEPTH[1:]},
            r"'a.jpg': the picture of depth is uint8 \(59, 80, 3\), the image \(60, 80, 3\)",
        ),
        (
            {"figures": [GalleryFigure(label="depth", picture=IMAGE, values=DEPTH[1:])]},
            r"'a.jpg': depth is \(59, 80\), the image \(60, 80\)",
        ),
        ({"depth": DEPTH * 5}, r"'a.jpg': depth spans 0 to .*expected relative depth"),
        ({"depth": DEPTH - 1}, r"'a.jpg': depth spans -1 to .*expected relative depth"),
        ({"normals": NORMALS[1:]}, r"'a.jpg': the picture of normals is uint8 \(59, 80, 3\)"),
        (
            {"figures": [GalleryFigure(label="normals", picture=IMAGE / 255)]},
            r"'a.jpg': the picture of normals is float64 \(60, 80, 3\)",
        ),
    ],
)
def test_cards_that_do_not_fit_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gallery(card(**fields))


def test_sides_must_be_positive() -> None:
    with pytest.raises(ValueError, match="probe_side_px = 0"):
        gallery(card(), probe_side_px=0)
