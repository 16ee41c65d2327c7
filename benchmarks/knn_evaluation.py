"""20-NN evaluation at the size of the marrow set: ours against scikit-learn, in one run.

    python benchmarks/knn_evaluation.py

137,098 references, 34,275 queries (80/20 of the 171,373 cells of BMC), length 384, k = 20,
unit vectors from 200 Gaussian clusters. How far a cluster spreads decides how much an exact
search may skip, so it is varied: `noise` is the noise's length over that of its centre, `cosine`
the mean cosine within a cluster. Both sides use the same threads, one after the other. The
vectors carry 21 labels, one in ten of them wrong, so that votes are not unanimous.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
CLUSTERS, CLASSES = 200, 21


def cells(count: int, dim: int, noise: float, rng: np.random.Generator) -> tuple[Rows, Labels]:
    centres = np.random.default_rng(7).standard_normal((CLUSTERS, dim), np.float32)
    of = rng.integers(0, CLUSTERS, count)
    rows = centres[of] + np.float32(noise) * rng.standard_normal((count, dim), np.float32)
    wrong = rng.random(count) < 0.1
    labels = np.where(wrong, rng.integers(0, CLASSES, count), of % CLASSES)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def timed(work: Callable[[], Labels]) -> tuple[Labels, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    out = work()
    return out, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--library", type=int, default=137_098)
    ask.add_argument("--queries", type=int, default=34_275)
    ask.add_argument("--dim", type=int, default=384)
    ask.add_argument("--k", type=int, default=20)
    ask.add_argument("--noise", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    ask.add_argument("--slice", type=int, default=4000, help="queries of scikit-learn; its "
                     "time is scaled to all of them; 0 for all")  # fmt: skip
    ask.add_argument("--threads", type=int, default=os.cpu_count())
    given = ask.parse_args()

    import torch
    from sklearn.neighbors import KNeighborsClassifier
    from threadpoolctl import threadpool_limits

    from search.neighbours.exact import search
    from search.votes.knn import votes

    torch.set_num_threads(given.threads)
    threadpool_limits(given.threads)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{given.queries} x {given.library} x {given.dim}, k = {given.k}, {where}, "
          f"{given.threads} threads, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
    print(
        "| noise | cosine | ours, s | scikit-learn, s | ratio | ratio of CPU s "
        "| compared | equal | tied votes |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for noise in given.noise:
        rng = np.random.default_rng(0)
        library, known = cells(given.library, given.dim, noise, rng)
        queries, _ = cells(given.queries, given.dim, noise, rng)
        some = queries[: given.slice] if given.slice else queries
        scale = len(queries) / len(some)
        near: Labels = np.empty(0, np.int64)

        def ours() -> Labels:
            nonlocal near
            near, scores = search(queries, library, given.k)  # noqa: B023 - called at once
            return votes(known[near], scores, CLASSES, "uniform").first  # noqa: B023

        def theirs() -> Labels:
            model = KNeighborsClassifier(given.k).fit(library, known)  # noqa: B023
            return np.asarray(model.predict(some), np.int64)  # noqa: B023

        predicted, wall, cpu = timed(ours)
        other, their_wall, their_cpu = timed(theirs)
        counts = np.sort(
            np.apply_along_axis(np.bincount, 1, known[near[: len(some)]], None, CLASSES)
        )
        tied = counts[:, -1] == counts[:, -2]
        same = (predicted[: len(some)] == other)[~tied]
        cosine = 1 / (1 + noise**2)
        print(f"| {noise} | {cosine:.2f} | {wall:.1f} | {scale * their_wall:.1f} | "
              f"{scale * their_wall / wall:.1f} | {scale * their_cpu / cpu:.1f} | {len(same)} | "
              f"{int(same.sum())} | {int(tied.sum())} |", flush=True)  # fmt: skip
    if given.slice and given.slice < given.queries:
        print(f"\nscikit-learn answered {given.slice} queries against the whole library; its time "
              f"is scaled by {scale:.2f}. It was not run on the rest.")  # fmt: skip
    print("Tied votes are left out of the comparison: scikit-learn gives them to the first class, "
          "ours to the class of the nearer neighbour.")  # fmt: skip


if __name__ == "__main__":
    main()
