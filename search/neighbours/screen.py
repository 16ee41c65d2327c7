"""Exact cosine search that computes few scores: upper bounds in 8 bits rule the others out.

Nothing is approximate in the answer. Rows are sorted into lists around centres; the nearest
lists give each query its `wide` best so far, and the last of these is its threshold. Every
other row is then held against an upper bound of its score. The bound is a dot product of
short 8-bit vectors: the coordinates along the principal axes, and the length of what is left
(Cauchy and Schwarz), plus the measured error of rounding. Only rows whose bound reaches the
threshold are scored in full.

Where the processor multiplies bfloat16 in tiles (AMX), the bound is the score itself in bfloat16
plus what rounding may have taken: ten times as fast as the 8-bit product, and so near the score
that how the vectors lie hardly matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from search.neighbours.scores import GROUP, single_error, top

LIST = 512
"""Aimed at rows per list."""
PROBED = 4
"""Lists scored in full for a query, the nearest to the centre of its own."""
ROUNDS = 5
"""Of k-means; the lists decide the speed, never the answer."""
REST = 16
"""Columns that carry the length of what the axes leave, to keep each entry small."""
QUERIES, ROWS = 512, 4096
"""Rows of one block of bounds: 8 MB of counts, written over and over, stay in the cache."""
HALF_QUERIES, HALF_ROWS = 1024, 2048
"""The same for scores in bfloat16: 4 MB."""
CHUNK = 2048
"""Pairs scored in full at once: 3 MB of each side stay in the cache."""
GEMM = 2.5e-12
"""Seconds per 8-bit multiplication and column, measured on two cores; only ratios matter."""
PAIR = 1.5e-6
"""Seconds to score one surviving pair in full."""
DENSE = 2.5e-9
"""Seconds per pair where everything is scored in float32 (384 columns)."""


@dataclass(frozen=True)
class Lists:
    """Rows sorted by list, each list filled up to whole groups with rows of zeros."""

    rows: Tensor
    """Sorted rows, float32."""
    place: Tensor
    """Position of each sorted row in the library; -1 where it fills up."""
    start: list[int]
    """First sorted row of each list, and the end."""
    of_group: Tensor
    """List of each group of `GROUP` sorted rows."""
    reach: Tensor
    """Largest angle between a list's centre and a row of it, in radians."""


@dataclass(frozen=True)
class Bounds:
    """8-bit vectors whose dot products bound scores from above."""

    q: Tensor
    """m x columns, int8."""
    x: Tensor
    """Sorted rows x columns, int8."""
    unit: float
    """Score per count."""
    slack: Tensor
    """m: added to count x unit, so that it is never below the score."""


@dataclass(frozen=True)
class Halves:
    """Rows in bfloat16, whose dot products are scores within `slack`."""

    q: Tensor
    """m x dim."""
    x: Tensor
    """Sorted rows x dim."""
    slack: Tensor
    """m: never less than the score's distance from the product."""


def tiles_work() -> bool:
    """Whether this machine multiplies bfloat16 in tiles (AMX)."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(torch._C._has_mkldnn and tiles is not None and tiles())


def int8_works() -> bool:
    """Whether this machine multiplies 8-bit matrices without saturating on the way."""
    try:
        full = torch.full((32, 64), 127, dtype=torch.int8)
        told = torch._int_mm(full, full.T.contiguous())
        mixed = torch._int_mm(full, -full.T.contiguous())
    except (AttributeError, RuntimeError):
        return False
    return bool((told == 64 * 127**2).all()) and bool((mixed == -64 * 127**2).all())


def screened(q: Tensor, x: Tensor, wide: int) -> tuple[Tensor, Tensor] | None:
    """The `wide` nearest of `x` to each row of `q`, scores within `single_error`.

    Args:
        q: m x dim, float32, rows of length 1.
        x: n x dim, the same.
        wide: How many.

    Returns:
        Scores, falling, and positions; `None` where screening would not pay: another
        processor, or vectors of which no few axes tell enough.
    """
    if len(x) < 4 * LIST or len(q) < LIST or not (tiles_work() or int8_works()):
        return None
    centres = _centres(x)
    mine, theirs = q @ centres.T, x @ centres.T
    lists = _sort(x, theirs)
    order = torch.argsort(mine.argmax(dim=1), stable=True)
    queries, mine = q[order].contiguous(), mine[order]
    own = mine.argmax(dim=1)
    near, at, probed = _seed(queries, own, lists, centres, wide)
    floor = near[:, -1] - 2 * single_error(q.shape[1])
    halves = _halves(queries, lists.rows) if tiles_work() else None
    if halves is not None and bool((floor - halves.slack > 0).all()):
        pairs = _reaching(queries, mine, own, lists, halves, floor, probed)
    else:
        bounds = _choose(queries, lists, floor) if int8_works() else None
        if bounds is None:
            return None
        pairs = _survivors(queries, mine, own, lists, bounds, floor, probed)
    near, at = _merge(near, at, *pairs)
    back = torch.argsort(order)
    return near[back], lists.place[at[back]]


def _centres(x: Tensor) -> Tensor:
    """Directions of k-means over a sample, rows of length 1."""
    count = min(max(len(x) // LIST, 2), 1024)
    sample = x[:: max(1, len(x) // (48 * count))]
    centres = sample[:: max(1, len(sample) // count)][:count].clone()
    for _ in range(ROUNDS):
        nearest = (sample @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        norms = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        centres = torch.where(norms > 1e-6, sums / norms.clamp_min(1e-6), centres)
    return centres


def _sort(x: Tensor, theirs: Tensor) -> Lists:
    """Rows by list."""
    cosine, nearest = theirs.max(dim=1)
    count = theirs.shape[1]
    sizes = torch.bincount(nearest, minlength=count)
    filled = (sizes + GROUP - 1) // GROUP * GROUP
    start = torch.cat([filled.new_zeros(1), filled.cumsum(0)])
    order = torch.argsort(nearest, stable=True)
    inside = torch.arange(len(x)) - (sizes.cumsum(0) - sizes)[nearest[order]]
    target = start[:-1][nearest[order]] + inside
    total = -(-int(start[-1]) // ROWS) * ROWS  # whole blocks
    rows = torch.zeros(total, x.shape[1])
    rows[target] = x[order]
    place = torch.full((total,), -1)
    place[target] = order
    of_group = torch.repeat_interleave(torch.arange(count), filled // GROUP)
    of_group = torch.cat([of_group, of_group.new_full((total // GROUP - len(of_group),), count)])
    lowest = torch.ones(count).scatter_reduce(0, nearest, cosine, "amin")
    reach = torch.arccos(lowest.clamp(-1, 1)) + 1e-3
    return Lists(rows, place, start.tolist(), of_group, reach)


def _seed(
    queries: Tensor, own: Tensor, lists: Lists, centres: Tensor, wide: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Every score of the lists nearest to each query's own: its best so far.

    Returns:
        Scores and sorted positions, m x wide, and lists x (lists + 1) flags of what was scored.
    """
    count = len(centres)
    near = torch.empty(len(queries), wide)
    at = torch.empty(len(queries), wide, dtype=torch.int64)
    probed = torch.zeros(count, count + 1, dtype=torch.bool)
    probed[:, count] = True  # rows that only fill up
    ranks = (centres @ centres.T).argsort(dim=1, descending=True)
    ends = torch.searchsorted(own, torch.arange(count + 1)).tolist()
    for one in range(count):
        rows = slice(ends[one], ends[one + 1])
        if rows.start == rows.stop:
            continue
        columns: list[Tensor] = []
        held = 0
        for other in ranks[one].tolist():
            if len(columns) >= PROBED and held >= wide:
                break
            span = torch.arange(lists.start[other], lists.start[other + 1])
            span = span[lists.place[span] >= 0]
            columns.append(span)
            held += len(span)
            probed[one, other] = True
        taken = torch.cat(columns)
        best, inside = top(queries[rows] @ lists.rows[taken].T, wide)
        near[rows], at[rows] = best, taken[inside]
    return near, at, probed


def _axes(lists: Lists) -> Tensor:
    """Principal axes of the rows about the origin, the strongest first, dim x dim."""
    sample = lists.rows[:: max(1, len(lists.rows) // 16384)]
    axes: Tensor = torch.linalg.eigh(sample.T @ sample).eigenvectors
    return axes.flip(1)


def _choose(queries: Tensor, lists: Lists, floor: Tensor) -> Bounds | None:
    """Bounds of the width that costs least, judged on a sample of pairs."""
    dim = queries.shape[1]
    axes = _axes(lists)
    some_q = torch.linspace(0, len(queries) - 1, min(512, len(queries))).long()
    some_x = torch.linspace(0, len(lists.rows) - 1, 8192).long()
    least, best = DENSE * dim / 384, 0
    for width in sorted({*range(64, dim, 64), dim}):
        if GEMM * width >= least:
            break
        q, x, unit, slack = _short(queries[some_q], lists.rows[some_x], axes, width)
        counts = torch._int_mm(q, x.T)
        reached = counts >= _threshold(floor[some_q], slack, unit)[:, None]
        # Pairs of one list are scored in the seed; there are few, so they are taken off whole.
        share = max(0.0, float(reached.float().mean()) - PROBED * LIST / len(lists.rows))
        cost = GEMM * width + PAIR * share
        if cost < least:
            least, best = cost, width
    if not best:
        return None
    return Bounds(*_short(queries, lists.rows, axes, best))


def _threshold(floor: Tensor, slack: Tensor, unit: float) -> Tensor:
    """The count from which a bound reaches the floor."""
    return ((floor - slack) / unit).ceil().clamp(-(2**30), 2**30).int()


def _short(q: Tensor, x: Tensor, axes: Tensor, width: int) -> tuple[Tensor, Tensor, float, Tensor]:
    """Rows as 8-bit vectors of `width` columns, and what makes their products upper bounds."""
    kept = width - REST if width < len(axes) else width
    # A random turn inside the kept axes makes all columns alike, which suits one scale.
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).standard_normal((kept, kept))))
    basis = axes[:, :kept] @ turn.Q.float()
    (short_q, unit_q, error_q), (short_x, unit_x, error_x) = (
        _rounded(rows, basis, width) for rows in (q, x)
    )
    slack = error_q + (1 + error_q) * error_x.max() + 4 * single_error(len(axes))
    return short_q, short_x, unit_q * unit_x, slack


def _rounded(rows: Tensor, basis: Tensor, width: int) -> tuple[Tensor, float, Tensor]:
    """8-bit rows, the value of one step, and the length of what rounding lost per row."""
    kept = basis.shape[1]
    long = torch.empty(len(rows), width)
    torch.mm(rows, basis, out=long[:, :kept])
    if kept < width:
        left = (1 - (long[:, :kept] ** 2).sum(dim=1)).clamp_min(0).sqrt() + 1e-4
        long[:, kept:] = left[:, None] / (width - kept) ** 0.5
    step = float(long.abs().max()) / 127
    short = (long / step).round()
    lost = torch.linalg.vector_norm(long.sub_(short, alpha=step), dim=1)
    return short.to(torch.int8), step, lost


def _survivors(
    queries: Tensor,
    mine: Tensor,
    own: Tensor,
    lists: Lists,
    bounds: Bounds,
    floor: Tensor,
    probed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs (query, sorted row) outside the seed whose bound and then score reach the floor."""
    count = probed.shape[0]
    reachable = _reachable(mine, lists, floor)
    threshold = _threshold(floor, bounds.slack, bounds.unit)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    room = torch.empty(QUERIES, ROWS, dtype=torch.int32)
    for first in range(0, len(queries), QUERIES):
        rows = slice(first, min(first + QUERIES, len(queries)))
        wanted = reachable[rows] & ~probed[own[rows], :count]
        wanted = torch.cat([wanted, wanted.new_zeros(len(wanted), 1)], dim=1)
        lists_wanted = wanted.any(dim=0)
        counts = room[: len(wanted)]
        for left in range(0, len(bounds.x), ROWS):
            groups = lists.of_group[left // GROUP : (left + ROWS) // GROUP]
            if not bool(lists_wanted[groups].any()):
                continue
            torch._int_mm(bounds.q[rows], bounds.x[left : left + ROWS].T, out=counts)
            grouped = counts.view(len(counts), -1, GROUP)
            row, group = (grouped.amax(dim=2) >= threshold[rows, None]).nonzero(as_tuple=True)
            kept = wanted[row, groups[group]]
            row, group = row[kept], group[kept]
            which, inside = (grouped[row, group] >= threshold[rows][row, None]).nonzero(
                as_tuple=True
            )
            row, column = first + row[which], left + group[which] * GROUP + inside
            score = _dots(queries, lists.rows, row, column)
            good = (score >= floor[row]) & (lists.place[column] >= 0)
            found.append((row[good], column[good], score[good]))
    none = torch.empty(0, dtype=torch.int64)
    found.append((none, none, torch.empty(0)))
    row, column, score = (torch.cat(parts) for parts in zip(*found, strict=True))
    return row, column, score


def _halves(q: Tensor, x: Tensor) -> Halves:
    """Both sides in bfloat16. The slack is what rounding took from the rows (Cauchy and Schwarz),
    half a step of a product below 1, and the error of sums in float32.
    """
    short_q, short_x = q.to(torch.bfloat16), x.to(torch.bfloat16)
    lost_q = torch.linalg.vector_norm(q - short_q.float(), dim=1)
    lost_x = max(
        float(torch.linalg.vector_norm(whole - short.float(), dim=1).max())
        for whole, short in zip(torch.split(x, 65536), torch.split(short_x, 65536), strict=True)
    )
    slack = lost_q + (1 + lost_q) * lost_x + 2.0**-9 + 4 * single_error(q.shape[1])
    return Halves(short_q, short_x, slack)


def _reaching(
    queries: Tensor,
    mine: Tensor,
    own: Tensor,
    lists: Lists,
    halves: Halves,
    floor: Tensor,
    probed: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`_survivors` by scores in bfloat16; every floor less its slack must be above 0.

    Scores are compared as whole numbers: from 0 upwards they keep their order, and all that is
    below 0 is below. A group is every `HALF_ROWS / GROUP`-th column, so that its maximum is taken
    by whole lines of memory.
    """
    across = HALF_ROWS // GROUP
    count = probed.shape[0]
    reachable = _reachable(mine, lists, floor)
    least = (floor - halves.slack).to(torch.bfloat16)  # may round up, so one step less
    threshold = least.view(torch.int16) - 1
    of_row = lists.of_group.repeat_interleave(GROUP)
    steps = torch.arange(GROUP) * across
    room = torch.empty(HALF_QUERIES, HALF_ROWS, dtype=torch.bfloat16)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(queries), HALF_QUERIES):
        rows = slice(first, min(first + HALF_QUERIES, len(queries)))
        enough, floors, lists_of = threshold[rows], floor[rows], own[rows]
        wanted = (reachable[rows] & ~probed[lists_of, :count]).any(dim=0)
        wanted = torch.cat([wanted, wanted.new_zeros(1)])
        scores = room[: len(lists_of)]
        whole = scores.view(torch.int16)
        flat = whole.view(-1)
        for left in range(0, len(halves.x), HALF_ROWS):
            if not bool(wanted[lists.of_group[left // GROUP : (left + HALF_ROWS) // GROUP]].any()):
                continue
            torch.mm(halves.q[rows], halves.x[left : left + HALF_ROWS].T, out=scores)
            highest = whole.view(len(lists_of), GROUP, across).amax(dim=1)
            reached = _where((highest >= enough[:, None]).view(-1))
            row = reached // across
            places = (row * (HALF_ROWS - across) + reached)[:, None] + steps
            reached = _where((flat.take(places) >= enough[row, None]).view(-1))
            row, column = row[reached // GROUP], left + places.view(-1)[reached] % HALF_ROWS
            new = ~probed[lists_of[row], of_row[column]]
            row, column = row[new], column[new]
            score = _dots(queries[rows], lists.rows, row, column)
            good = score >= floors[row]
            found.append((first + row[good], column[good], score[good]))
    none = torch.empty(0, dtype=torch.int64)
    found.append((none, none, torch.empty(0)))
    row, column, score = (torch.cat(parts) for parts in zip(*found, strict=True))
    return row, column, score


def _where(flags: Tensor) -> Tensor:
    """Positions of what is true, by numpy: sparse flags take it a tenth of torch's time."""
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def _reachable(mine: Tensor, lists: Lists, floor: Tensor) -> Tensor:
    """Which lists may hold a row that reaches each query's floor, by angles: m x lists."""
    away = torch.arccos(mine.clamp(-1, 1)) - lists.reach
    return away <= torch.arccos(floor.clamp(-1, 1))[:, None]


def _dots(queries: Tensor, rows: Tensor, row: Tensor, column: Tensor) -> Tensor:
    out = torch.empty(len(row))
    for at in range(0, len(row), CHUNK):
        part = slice(at, at + CHUNK)
        torch.linalg.vecdot(queries[row[part]], rows[column[part]], out=out[part])
    return out


def _merge(
    near: Tensor, at: Tensor, row: Tensor, column: Tensor, score: Tensor
) -> tuple[Tensor, Tensor]:
    """The best of the seed and the survivors together."""
    wide = near.shape[1]
    touched, member = torch.unique(row, return_inverse=True)
    if not len(touched):
        return near, at
    rows = torch.cat([torch.arange(len(touched)).repeat_interleave(wide), member])
    scores = torch.cat([near[touched].flatten(), score])
    columns = torch.cat([at[touched].flatten(), column])
    order = torch.from_numpy(np.lexsort((columns.numpy(), -scores.numpy(), rows.numpy())))
    sizes = torch.bincount(rows, minlength=len(touched))
    first = (sizes.cumsum(0) - sizes)[:, None] + torch.arange(wide)
    near, at = near.clone(), at.clone()
    near[touched], at[touched] = scores[order][first], columns[order][first]
    return near, at
