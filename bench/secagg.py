"""What secure aggregation costs: masking and unmasking a LoRA update, against adding the plain vectors.

    python bench/secagg.py [--quick] [--write bench/results/secagg.json]

``mask_ratio``: adding 11 masks (10 neighbours' and one's own) to 4.2 million values of 32 bits, over adding 11 plain
vectors of that length. ``unmask_ratio``: removing what is left of the masks when 1 of 10 members dropped out, over
adding the 9 plain vectors. ``cipher_share``: AES-256-CTR alone on the same bytes, one call a mask, over masking; goal
at least 0.6. ``ratio``: process time of all members and the coordinator of one round with Flower's own SecAgg+ workflow
and client mod (bench/_secagg_flower.py), over ours at 16 bits, 10 members of 4.2 million values, none lost; goal at
least 10. ``bytes_ratio``: our bytes up over theirs; goal at most 0.5. ``against_flower``: at every width, and 2 lost.
``round``: a whole round of 10 members, 1 lost, at three ring widths, by part, with bytes up. ``cohorts``:
the same with 100 members (quick: 50; --thousand: 1,000 too, a quarter of an hour), 10 % lost before the upload and 10 %
of the holders after it: time of one member and of the coordinator, and whether the sum was exact. Process time, one
thread; the median of some repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _result import emit
from _secagg_flower import flower_round
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedft.identity.keys import PrivateKey
from fedft.randomness import SecureStream, reproducible_rng, secure_bytes
from fedft.secagg.context import KeyList, RoundContext, gather_keys, read_keys
from fedft.secagg.coordinator import Coordinator
from fedft.secagg.encoding import FixedPoint, pack, unpack
from fedft.secagg.graph import shape_for
from fedft.secagg.institution import Institution, MemoryRecorder
from fedft.secagg.masking import add_masks, ring_zeros

VALUES, NEIGHBOURS, MEMBERS, REPEATS = 4_200_000, 10, 10, 7


def seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def add_plain(total: Any, vectors: list[Any]) -> None:
    for vector in vectors:
        np.add(total, vector, out=total)


def masks(values: int) -> dict[str, float]:
    total = ring_zeros(values, 32)
    plain = [np.full(values, number, dtype=np.uint32) for number in range(NEIGHBOURS + 1)]
    keys = [secure_bytes(32) for _ in range(NEIGHBOURS + 1)]
    nothing, buffer = bytes(total.nbytes), bytearray(total.nbytes + 15)

    def cipher_alone() -> None:
        for key in keys:
            Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update_into(nothing, buffer)

    mask, alone = seconds(lambda: add_masks(total, keys[:6], keys[6:])), seconds(cipher_alone)
    added, nine = seconds(lambda: add_plain(total, plain)), seconds(lambda: add_plain(total, plain[:9]))
    left = [secure_bytes(32) for _ in range(2 * (MEMBERS - 1))]  # nine b and nine masks with the one that dropped out
    unmask = seconds(lambda: add_masks(total, left[:9], left[9:]))
    return {
        "mask_seconds": mask,
        "mask_ratio": mask / added,
        "unmask_seconds": unmask,
        "unmask_ratio": unmask / nine,
        "cipher_share": alone / mask,
        "masked_values_per_second": (NEIGHBOURS + 1) * values / mask,
    }


def one_round(values: int, ring_bits: int, repeats: int) -> dict[str, float]:
    """By part; the exact sum is asserted."""
    names = [f"m{number}" for number in range(MEMBERS)]
    point, words = FixedPoint.widest(ring_bits, 0.5, dict.fromkeys(names, 1.0)), SecureStream().words
    vector = reproducible_rng(0, "bench-secagg").normal(0.0, 1e-3, values).astype(np.float32)
    residues = ring_zeros(values, ring_bits)
    packed = pack(residues, ring_bits)
    parties = Parties(MEMBERS)
    encoded = point.encode(vector, names[0], words)
    found = parties.play(1, dict.fromkeys(parties.names, encoded), ring_bits, lost=1, silent=0)
    return {
        "fraction_bits": point.fraction_bits,
        "encode_seconds": seconds(lambda: point.encode(vector, names[0], words), repeats),
        "pack_seconds": seconds(lambda: pack(residues, ring_bits), repeats),
        "unpack_seconds": seconds(lambda: unpack(packed, values, ring_bits), repeats),
        **found,
    }


def against_flower(values: int, repeats: int) -> dict[str, Any]:
    """The same round by both: process time of all members and the coordinator, and bytes of all members up."""
    vector = reproducible_rng(0, "bench-secagg").normal(0.0, 1e-3, values).astype(np.float32)
    found: dict[str, Any] = {}
    for lost in (0, 2):
        theirs = [flower_round(vector, MEMBERS, shape_for(MEMBERS).threshold, lost) for _ in range(repeats)]
        total = statistics.median(sum(cost.member_seconds.values()) + cost.coordinator_seconds for cost in theirs)
        for bits in (16, 24, 32):
            ours = [our_round(vector, bits, lost) for _ in range(repeats)]
            seconds_of_all = statistics.median(one["seconds"] for one in ours)
            found[f"{lost} lost, {bits} bits"] = {
                "ratio": total / seconds_of_all,
                "bytes_ratio": ours[0]["bytes_up"] / theirs[0].bytes_up,
                "our_seconds": seconds_of_all,
                "our_member_seconds": statistics.median(one["member_seconds"] for one in ours),
                "our_coordinator_seconds": statistics.median(one["coordinator_seconds"] for one in ours),
                "our_bytes_up": ours[0]["bytes_up"],
                "flower_seconds": total,
                "flower_member_seconds": statistics.median(
                    statistics.median(cost.member_seconds.values()) for cost in theirs
                ),
                "flower_coordinator_seconds": statistics.median(cost.coordinator_seconds for cost in theirs),
                "flower_bytes_up": theirs[0].bytes_up,
            }
    return found


def our_round(vector: Any, ring_bits: int, lost: int) -> dict[str, float]:
    parties = Parties(MEMBERS)
    point = FixedPoint.widest(ring_bits, 0.5, dict.fromkeys(parties.names, 1.0))
    begun = time.process_time()
    encoded = point.encode(vector, parties.names[0], SecureStream().words)
    encode = time.process_time() - begun
    one = parties.play(1, dict.fromkeys(parties.names, encoded), ring_bits, lost=lost, silent=0)
    member = encode + float(one["upload_seconds"]) + float(one["answer_seconds"])
    there = MEMBERS - lost
    return {
        "seconds": there * member + float(one["coordinator_seconds"]),
        "member_seconds": member,
        "coordinator_seconds": float(one["coordinator_seconds"]),
        "bytes_up": there * int(one["bytes_up"]),
    }


def growth(cohorts: list[dict[str, Any]], key: str) -> float:
    """The exponent of ``key`` in the number of members, least squares in logarithms, at one number of values."""
    members, found = ([np.log(one[name]) for one in cohorts] for name in ("members", key))
    return float(np.polyfit(members, found, 1)[0])


class Parties:
    """A cohort in one process. The list of keys is read once for all: each would verify every signature in it."""

    def __init__(self, members: int) -> None:
        self.names = [f"m{number:04d}" for number in range(members)]
        self.coordinator = PrivateKey.generate()
        self.identity = {name: PrivateKey.generate() for name in self.names}
        self.identities = {name: key.public for name, key in self.identity.items()}
        self.members = {
            name: Institution(name, key, self.identities, self.coordinator.public, MemoryRecorder())
            for name, key in self.identity.items()
        }
        sent = {name: member.key_message("run") for name, member in self.members.items()}
        self.keys: KeyList = read_keys(gather_keys("run", sent, self.identities), "run", self.identities)[0]
        for member in self.members.values():
            member._keys["run"] = self.keys

    def play(
        self, number: int, values: dict[str, Any], ring_bits: int, *, lost: int, silent: int
    ) -> dict[str, float | int | bool]:
        """One round; ``lost`` members upload nothing, ``silent`` holders that uploaded do not answer."""
        limits = dict.fromkeys(self.names, (2 ** (ring_bits - 1) - 1) // len(self.names))
        size = len(next(iter(values.values())))
        context = RoundContext(
            "run", number, "0" * 64, self.keys.digest, limits, size, ring_bits, 0, shape_for(len(self.names)).threshold
        )
        gone = set(reproducible_rng(number, "bench-secagg-lost").choice(self.names, lost, replace=False).tolist())
        collector = Coordinator(context, self.coordinator, self.identities)
        uploads, answers, reply = [], [], b""
        sent: bytes | memoryview = b""
        coordinator, expected = 0.0, np.zeros(size, dtype=np.int64)
        for name in self.names:
            if name in gone:
                continue
            begun = time.process_time()
            sent = self.members[name].upload(context, values[name])
            uploads.append(time.process_time() - begun)
            begun = time.process_time()
            collector.add_upload(name, sent)
            coordinator += time.process_time() - begun
            expected += values[name]
        begun = time.process_time()
        questions = collector.name_set()
        coordinator += time.process_time() - begun
        for name in list(questions)[silent:]:
            begun = time.process_time()
            reply = self.members[name].unmask("run", number, questions[name])
            answers.append(time.process_time() - begun)
            collector.add_answer(name, reply)
        begun = time.process_time()
        found = collector.finish()
        coordinator += time.process_time() - begun
        return {
            "upload_seconds": statistics.median(uploads),
            "answer_seconds": statistics.median(answers),
            "coordinator_seconds": coordinator,
            "bytes_up": len(sent) + len(reply),
            "bytes_down": len(next(iter(questions.values()))),
            "exact": bool(np.array_equal(found.values, expected)),
        }


def cohort(members: int, values: int) -> dict[str, Any]:
    parties = Parties(members)
    shape = shape_for(members)
    rng = reproducible_rng(0, "bench-secagg-values")
    limit = (2**31 - 1) // members
    drawn = rng.integers(-limit, limit, values, endpoint=True)
    found = parties.play(1, dict.fromkeys(parties.names, drawn), 32, lost=members // 10, silent=shape.holders // 10)
    return {"members": members, "values": values, "neighbours": shape.neighbours, "holders": shape.holders, **found}


def measured(quick: bool, thousand: bool) -> dict[str, Any]:
    values, repeats = (VALUES // 10, 3) if quick else (VALUES, REPEATS)
    found: dict[str, Any] = {"values": values, "neighbours": NEIGHBOURS, **masks(values)}
    found["round"] = {f"{bits} bits": one_round(values, bits, repeats) for bits in (16, 21, 32)}
    sizes = [(50, 10_000)] if quick else [(100, 1_000_000)]
    sizes += [(1000, 100_000)] if thousand else []
    compared = against_flower(values, repeats if quick else 3)
    found |= {key: compared["0 lost, 16 bits"][key] for key in ("ratio", "bytes_ratio")}
    found["against_flower"] = compared
    small = [cohort(members, 10_000) for members in ((20, 40) if quick else (25, 50, 100, 200))]
    found["growth"] = {
        "members": [one["members"] for one in small],
        **{key: growth(small, key) for key in ("upload_seconds", "answer_seconds", "coordinator_seconds")},
    }
    found["cohorts"] = [cohort(members, size) for members, size in sizes]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the values, 50 members")
    parser.add_argument("--thousand", action="store_true", help="a cohort of 1,000 too")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    emit("secagg", measured(args.quick, args.thousand), write=args.write)


if __name__ == "__main__":
    main()
