"""TIFF files of any layout, built by hand."""

import struct
import zlib

import numpy as np

DEFLATE, SEPARATE = 8, 2


def tiff(
    samples: np.ndarray, photometric: int, bits: int, *, sample_format: int = 1, big: bool = False,
    extra: tuple[int, ...] = (), planar: int = 1, compression: int = 1,
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = (),
) -> bytes:  # fmt: skip
    """A TIFF of samples `[h w c]`: one strip, or one of each plane. more: (tag, type, values)."""
    order = ">" if big else "<"
    height, width, count = samples.shape
    planes = [samples[..., [c]] for c in range(count)] if planar == SEPARATE else [samples]
    strips = [_packed(plane, bits, order) for plane in planes]
    if compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    data = b"".join(strips)
    places = tuple(8 + sum(map(len, strips[:number])) for number in range(len(strips)))
    entries: list[tuple[int, int, tuple[int, ...]]] = [
        (256, 4, (width,)), (257, 4, (height,)), (258, 3, (bits,) * count),
        (259, 3, (compression,)), (262, 3, (photometric,)), (273, 4, places), (277, 3, (count,)),
        (278, 4, (height,)), (279, 4, tuple(map(len, strips))), (284, 3, (planar,)),
        (339, 3, (sample_format,) * count), *more,
    ]  # fmt: skip
    if extra:
        entries.append((338, 3, extra))
    offset = 8 + len(data) + len(data) % 2
    directory = struct.pack(f"{order}H", len(entries))
    behind, later = b"", offset + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        code = {1: "B", 3: "H", 4: "I"}[kind]
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > 4:
            place = struct.pack(f"{order}I", later + len(behind))
            behind += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    head = (b"MM" if big else b"II") + struct.pack(f"{order}HI", 42, offset)
    return head + data + bytes(len(data) % 2) + directory + bytes(4) + behind


def _packed(samples: np.ndarray, bits: int, order: str) -> bytes:
    if bits >= 8:
        return samples.astype(samples.dtype.newbyteorder(">" if order == ">" else "<")).tobytes()
    each = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    return np.packbits(each.reshape(len(samples), -1), axis=1).tobytes()
