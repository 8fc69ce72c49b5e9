"""The mutants of ``mutants.py``: one change each, that a test must notice.

What nobody can notice is not listed: where two orders or two roundings give the same result.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "Mutant"]

_DATA, _SAMPLER = "packages/viscy-data/src/viscy_data", "packages/viscy-data/src/viscy_data/sampler"
_DYNACLR, _INDEX = "applications/dynaclr/src/dynaclr", "applications/dynaclr/src/dynaclr/index"
_LOSSES = "packages/viscy-losses/src/viscy_losses/functional"
_EVALUATION = "packages/viscy-utils/src/viscy_utils/evaluation"
_LOOKUP_TESTS = ("packages/viscy-data/tests/test_lookup.py",)
_SAMPLER_TESTS = ("packages/viscy-data/tests/test_sampler_parts.py", "packages/viscy-data/tests/test_sampler.py")
_PATCH_TESTS = ("packages/viscy-data/tests/test_placement.py", "packages/viscy-data/tests/test_patches.py")
_LOSS_TESTS = ("packages/viscy-losses/tests/test_functional.py", "packages/viscy-losses/tests/test_losses.py")
_PROBE_TESTS = tuple(f"packages/viscy-utils/tests/evaluation/test_{name}.py" for name in ("probe", "scores"))


class Mutant(NamedTuple):
    """A text of a file, what it is replaced by, and the tests that must fail then."""

    group: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(group: str, file: str, tests: tuple[str, ...], *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(group, file, old, new, tests) for old, new in changes]


def _dynaclr(*names: str) -> tuple[str, ...]:
    return tuple(f"applications/dynaclr/tests/test_{name}.py" for name in names)


MUTANTS = [
    # Positives and negatives
    *_of(
        "positives",
        f"{_DYNACLR}/positives.py",
        _dynaclr("positives"),
        ('forest.leave if scope == "descendants" else forest.enter + 1', "forest.leave"),
        ("np.where(high == 0, 0, np.maximum(low, 1)), high", "low, high"),
        ("allowed = (end > begin) & (grid <= high[:, None])", "allowed = end > begin"),
        (" & (low <= elapsed) & (elapsed <= high)", " & (low <= elapsed)"),
        ("(self._track[below] == self._track[rows]) & ", ""),
        ("tau = low[waiting]", "tau = low[waiting] + 1"),
        ("np.where(tau == 0, rows, self.order.rows(place))", "self.order.rows(place)"),
    ),
    *_of(
        "positives",
        f"{_DYNACLR}/tau_sampling.py",
        _dynaclr("tau_sampling"),
        ("-decay_rate * (offsets / span)", "-decay_rate * offsets"),
        ("-decay_rate * (offsets / span)", "decay_rate * (offsets / span)"),
        ("open_ &= np.asarray(allowed, dtype=bool)", "pass"),
    ),
    *_of(
        "positives",
        f"{_DYNACLR}/negatives.py",
        _dynaclr("dataset"),
        ("own = self._sorted.between(key, key + 1)", "own = self._sorted.between(key, key)"),
        ("(experiment + 1) * self._n_lineages", "(experiment + 2) * self._n_lineages"),
    ),
    *_of(
        "positives",
        f"{_DATA}/lookup.py",
        _LOOKUP_TESTS,
        ("(rng.random(len(begin)) * n_left)", "(rng.random(len(begin)) * (n_left - 1))"),
        ("place >= skipped", "place > skipped"),
        ("< end)", "<= end)"),
        ('kind="stable"', 'kind="quicksort"'),
    ),
    # Lineage
    *_of(
        "lineage",
        f"{_DYNACLR}/lineage.py",
        _dynaclr("lineage"),
        ("lost = parent[root] >= 0", "lost = parent[root] >= len(parent)"),
        ("(place < self.leave[ancestor])", "(place <= self.leave[ancestor])"),
        ("range(len(parent).bit_length() + 1)", "range(2)"),
        ("after[children[younger - 1] + n] = children[younger]", "pass"),
        ("end = end[root]", "end = end"),
        ("parent.max() >= len(parent)", "parent.max() > len(parent)"),
    ),
    # Index
    *_of(
        "index",
        f"{_INDEX}/observations.py",
        _dynaclr("index"),
        ("start[own] + t[part] * registry", "t[part] * registry"),
        ("registry.interval_hours[own]", "registry.interval_hours[0]"),
        ("table.track_index, forest.root[table.track_index])", "table.track_index, table.track_index)"),
        ("clamp_centers(center[part], size, extents[fov[part]])", "clamp_centers(center[part], size, extents[0])"),
    ),
    *_of(
        "index",
        f"{_INDEX}/tracks_table.py",
        _dynaclr("index"),
        ("np.int32(-1), part.parent + np.int32(offset))", "np.int32(-1), part.parent)"),
        ("np.where(parent < 0, np.int32(-1), track_number[parent])", "parent"),
        ("fov_number[self.track_fov[track_kept]]", "self.track_fov[track_kept]"),
    ),
    *_of(
        "index",
        f"{_INDEX}/multi_experiment.py",
        _dynaclr("index"),
        (
            "(limits[experiment] for limits in self._tau_frames.T)",
            "(limits[0 * experiment] for limits in self._tau_frames.T)",
        ),
        ("self._kept = shift <= self.max_border_shift", "self._kept = shift < self.max_border_shift"),
    ),
    *_of(
        "index",
        f"{_INDEX}/conditions.py",
        _dynaclr("index", "index_input"),
        ("named[number].get(fov.well, defaults[number])", "named[0].get(fov.well, defaults[number])"),
        ("named[number].get(fov.well, defaults[number])", "named[number].get(fov.well, defaults[0])"),
        ("if chosen or not 0 < n_cells < total:", "if chosen or not 0 < n_cells:"),
    ),
    # Sampler
    *_of(
        "sampler",
        f"{_SAMPLER}/epoch.py",
        _SAMPLER_TESTS,
        ("self.key = hash_key(seed, epoch)", "self.key = hash_key(seed, 0)"),
        ("self.key = hash_key(seed, epoch)", "self.key = hash_key(0, epoch)"),
        ("np.random.SeedSequence((seed, epoch))", "np.random.SeedSequence((seed, 0))"),
        ("return hash_key(self.key, BATCH_SCOPE + number)", "return hash_key(self.key, BATCH_SCOPE)"),
        ("np.uint64(hash_key(self.key, scope))", "np.uint64(self.key)"),
        ("np.floor(edges + rng.random())", "np.floor(edges + 0.5)"),
        ("while gcd(self._stride, n_batches) > 1:", "while False:"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/compose.py",
        _SAMPLER_TESTS,
        ("(rotation.used(phase + earlier) - rotation.used(phase)).ravel()", "(0 * rotation.used(phase)).ravel()"),
        ("shares if shares.sum() > 0 else pool.astype(np.float64)", "shares"),
        ("epoch.batch_key(number) % (end - first)", "0"),
        ("self.sizes.shape[1] * self.groups.edges.shape[1]", "10**6"),
        ("self.groups.window(focal_time, self.plan.temporal_window_hours)", "self.groups.window(focal_time, 2.0)"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/rounding.py",
        _SAMPLER_TESTS,
        ("((start + shift) % 1.0)", "(0.5 + 0 * start)"),
        ("turned += (size", "turned += 0 * (size"),
        ("np.floor(size * fraction + 1e-9)", "np.floor(size * fraction)"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/draw.py",
        _SAMPLER_TESTS,
        ("take[:, 1] += short - inside", "pass"),
        ("(requests.first + counts <= sizes).all()", "True"),
        ("others[:, experiment, 1] = others[:, experiment, 0]", "pass"),
        ("left[:, experiment] = 0", "pass"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/plan.py",
        _SAMPLER_TESTS,
        (
            "whole_part(self.batch_size, self.leaky) if n_experiments > 1 else 0",
            "whole_part(self.batch_size, self.leaky)",
        ),
        ("rest = max(0.0, 1.0 - total) / max(1, left_out)", "rest = 1.0 / len(names)"),
        ("[weights.get(name, 0.0) for name in names]", "[weights.get(name, 1.0) for name in names]"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/groups.py",
        _SAMPLER_TESTS,
        ("codes[without] = len(table) + np.arange(len(without))", "codes[without] = len(table)"),
        ("slack = 1e-9 * max(1.0, abs(time), half_width)", "slack = 0.0"),
        ('order = order[np.argsort(digit[order], kind="stable")]', "pass"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/lineages.py",
        _SAMPLER_TESTS,
        ("if self.used[place] < uses and len(", "if len("),
        ("for lineage in full.tolist():", "for lineage in []:"),
        ("is_free[full] = False", "pass"),
        ("self.used[int(self.places[holder])] -= 1", "pass"),
        ("self.of_lineage[left].remove(holder)", "pass"),
        ("if self.used[place] >= self.uses[request]:", "if False:"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/neighbors.py",
        _SAMPLER_TESTS,
        ("near = near[~np.isin(near, places)]", "pass"),
        ("np.sort(np.unique(near, return_index=True)[1])", "np.arange(len(near))"),
        ("np.flatnonzero(request < n_own)", "np.arange(len(request))"),
        ("[: self.wanted]\n", "\n"),
        ("self._table[self._order[places[chosen]]].T.ravel()", "self._table[self._order[places[chosen]]].ravel()"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/permutation.py",
        _SAMPLER_TESTS,
        ("_LISTED = 64", "_LISTED = 2"),
        ("again = large[size[large] < _ONCE]", "again = large[:0]"),
        ("(reach <= half)", "(reach <= size)"),
        ("(cycle > 0) & (reach", "(cycle > 10**9) & (reach"),
    ),
    *_of(
        "sampler",
        f"{_SAMPLER}/flexible.py",
        _SAMPLER_TESTS,
        ("max(1, whole + (rest > 0 and not self.drop_last))", "max(1, whole)"),
    ),
    *_of(
        "sampler",
        f"{_DATA}/distributed.py",
        ("packages/viscy-data/tests/test_distributed.py", *_SAMPLER_TESTS),
        ("range(start + world.rank,", "range(world.rank,"),
        ("self.positions(number % n_batches, epoch)", "self.positions(number // world.size % n_batches, epoch)"),
        ("len(self) - ceil((self.n_batches - self.start) /", "len(self) - ((self.n_batches - self.start) //"),
    ),
    # Patches
    *_of(
        "patches",
        f"{_DATA}/placement.py",
        _PATCH_TESTS,
        ("np.floor(np.asarray(center, dtype=np.float64) + 0.5)", "np.rint(np.asarray(center, dtype=np.float64))"),
        ("last - np.abs(last - pixels) - self.read_start", "np.minimum(pixels, last) - self.read_start"),
        (
            "np.clip(self.final_start - self._wanted, 0, self._read - self._final)",
            "(self._read - self._final) // 2 + 0 * self._wanted",
        ),
        ("np.clip(self._wanted, 0, self._extent - self._read)", "np.maximum(self._wanted, 0)"),
        ("shifts[part] = np.maximum(*", "shifts[part] = np.minimum(*"),
        ("own = extents[fov[part]]", "own = extents[fov[: len(fov[part])]]"),
    ),
    *_of(
        "patches",
        f"{_DATA}/patches.py",
        _PATCH_TESTS,
        ("batch[channels < 0] = 0", "batch[channels < 0] = 1"),
        ("bad = (first < 0) | (last > limit)", "bad = first < 0"),
        ("(entry[1][0] - entry[0], entry[1][1] - entry[0])", "entry[1][1] - entry[0]"),
        ("(entry[1][0] - entry[0], entry[1][1] - entry[0])", "entry[1][0] - entry[0]"),
        ("while len(self._open) > self.max_open:", "while False:"),
        ("self._open.move_to_end(key)", "pass"),
        ("if self._is_first(self.nonfinite, key, count):", "if True:"),
        ("translate_by[t, -wanted", "translate_by[0, -wanted"),
    ),
    # Losses
    *_of(
        "losses",
        f"{_LOSSES}/masks.py",
        _LOSS_TESTS,
        ("PairMasks(same & ~itself, ~same)", "PairMasks(same, ~same)"),
        ("same.diagonal(offset=rows.start).fill_(False)", "pass"),
        ("accumulate=True", "accumulate=False"),
    ),
    *_of(
        "losses",
        f"{_LOSSES}/mining.py",
        _LOSS_TESTS,
        (" & (similarity > closeness - margin)", ""),
        ("(last.double() * percentile / 100).ceil()", "(last.double() * percentile / 100).floor()"),
        ('return beta if scale == "similarity" else beta / temperature', "return beta"),
        ("alpha=concentration + 1 / temperature", "alpha=1 / temperature"),
        ("mass = mass + number - torch", "mass = mass - torch"),
        ("return mass.masked_fill(empty, -torch.inf)", "return mass"),
    ),
    *_of(
        "losses",
        f"{_LOSSES}/query_losses.py",
        _LOSS_TESTS,
        ("losses.masked_fill(mass == -math.inf, 0)", "losses"),
        ("positives | relations.negatives", "relations.negatives"),
        ("- math.log1p(-prior)\n        usable", "\n        usable"),
        ("usable = corrected > floor", "usable = corrected > -math.inf"),
        ("losses.masked_fill(~triplets, 0), triplets", "losses, triplets"),
    ),
    *_of(
        "losses",
        f"{_LOSSES}/similarity.py",
        _LOSS_TESTS,
        (".masked_fill((rows == 0).all(dim=-1, keepdim=True), 0)", ""),
        ("cosine_similarity(query, reference) / temperature", "cosine_similarity(query, reference)"),
    ),
    # Probe
    *_of(
        "probe",
        f"{_EVALUATION}/probe.py",
        _PROBE_TESTS,
        (
            "    own = [StandardScaler(), LogisticRegression(",
            "    features = StandardScaler().fit_transform(features)\n    own = [LogisticRegression(",
        ),
        ('class_weight="balanced"', "class_weight=None"),
        ("    _check_apart(units, test)\n", ""),
        ("kept = np.flatnonzero(~missing)", "kept = np.arange(len(missing))"),
        ("classifier.fit(features[~test], labels[~test])", "classifier.fit(features, labels)"),
        ("fit(features[train], labels[train])", "fit(features, labels)"),
        ("StandardScaler(with_std=False), KNeighborsClassifier", "KNeighborsClassifier"),
    ),
    *_of(
        "probe",
        f"{_EVALUATION}/folds.py",
        _PROBE_TESTS,
        (
            "splits.split(self.strata, self.strata, self.groups)",
            "splits.split(self.strata, self.strata, np.arange(len(self.strata)))",
        ),
        ("if not alone and _number(", "if alone and _number("),
    ),
    *_of(
        "probe",
        f"{_EVALUATION}/scores.py",
        _PROBE_TESTS,
        ("*low_high, 1 / recalls.shape[1], note", "*low_high, 0.5, note"),
        ("recalls.mean()), *low_high", "counts[0].sum() / counts[1].sum()), *low_high"),
        ("below + others / 2", "below + others"),
        ("frequencies * guess / (frequencies + guess)", "guess * guess / (frequencies + guess)"),
    ),
    *_of(
        "probe",
        f"{_EVALUATION}/intervals.py",
        _PROBE_TESTS,
        ("codes = np.unique(units, return_inverse=True)[1]", "codes = np.arange(len(units))"),
    ),
]
