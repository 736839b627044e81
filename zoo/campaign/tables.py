"""Results as Markdown tables, the published number and its protocol beside ours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoo.campaign.published import Bar, Source, best_bar, soft_bar
from zoo.campaign.results import Result
from zoo.campaign.rows import Row, Scores, number
from zoo.campaign.statistics import interquartile_mean, mean_and_std

__all__ = ["aggregate_table", "detail_tables", "overview_table", "protocols", "provenance"]


def overview_table(rows: Sequence[Row]) -> str:
    """Return a table of tasks × algorithms; bold is at or above the published bar.

    A mean over fewer seeds than the other cells' says so.
    An algorithm has a column of published numbers if there is one for any of its tasks.
    """
    by_key = {(row.algo, row.env_id): row for row in rows}
    n_seeds = max(len(row.finished) + len(row.failed) for row in rows)
    columns = {row.algo: False for row in sorted(rows, key=lambda row: row.algo)}
    for row in rows:
        columns[row.algo] |= best_bar(row.algo, row.env_id) is not None
    heads = []
    for algo, published in columns.items():
        heads += [_title(algo), *["published"] * published]
    lines = [_line(["task", *heads]), _line(["---", *["---:"] * len(heads)])]
    for env_id in sorted({row.env_id for row in rows}):
        cells = [env_id]
        for algo, published in columns.items():
            bar = best_bar(algo, env_id)
            cell = by_key.get((algo, env_id))
            mean = _mean(cell, bar) + _fewer_seeds(cell, n_seeds)
            cells += [mean, *[_short(bar, algo)] * published]
        lines.append(_line(cells))
    return "\n".join([*lines, *_notes(rows)])


def detail_tables(rows: Sequence[Row]) -> str:
    """Return one table per algorithm with interval, bar, protocol and time of each task."""
    heads = ["task", "steps", "seeds", "mean ± std", "IQM [95 % interval]", "best published"]
    heads += ["measured on", "single run or unstated protocol", "minutes"]
    parts = []
    for algo in sorted({row.algo for row in rows}):
        lines = [f"### {_title(algo)}", "", _line(heads)]
        lines.append(_line(["---", *["---:"] * 5, "---", "---:", "---:"]))
        own = [row for row in rows if row.algo == algo]
        lines += [_detail(row) for row in own]
        parts.append("\n".join([*lines, *_notes(own), *_origin(own)]))
    return "\n\n".join(parts)


def aggregate_table(scores: Scores) -> str:
    """Return the interquartile mean over all tasks and seeds of the normalised return."""
    if not scores.env_ids:
        return "No task has results of every algorithm, a published bar and a measured zero."
    lines = [
        _line(["algorithm", "IQM of the normalised return [95 % interval]", "mean", "seeds"]),
        _line(["---", "---:", "---:", "---:"]),
    ]
    for algo, matrix in scores.matrices.items():
        estimate = interquartile_mean(matrix)
        interval = f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
        lines.append(_line([_title(algo), interval, f"{matrix.mean():.2f}", str(len(matrix))]))
    return "\n".join([*lines, "", f"Over {', '.join(scores.env_ids)}."])


def protocols(rows: Sequence[Row]) -> str:
    """Return the protocol of every source that the tables name."""
    sources: dict[str, Source] = {}
    for row in rows:
        for bar in (best_bar(row.algo, row.env_id), soft_bar(row.algo, row.env_id)):
            if bar is not None:
                sources[bar.source.key] = bar.source
    return "\n".join(
        f"- [{source.name}]({source.url}): {source.protocol}."
        for source in sorted(sources.values(), key=lambda source: source.name.lower())
    )


def provenance(rows: Sequence[Row]) -> str:
    """Return the versions, commits, seeds and processors behind the numbers."""
    results = [result for row in rows for result in row.finished]
    versions = sorted({_versions(result.versions) for result in results})
    processors = sorted({str(result.machine.get("processor")) for result in results})
    seeds = sorted({result.cell.seed for result in results})
    steps = sorted({int(result.config["n_timesteps"]) for result in results})
    episodes = sorted({len(result.returns) for result in results})
    return "\n".join(
        [
            f"- {len(results)} runs of {_listed(steps)} steps, seeds {_listed(seeds)}, "
            f"{_listed(episodes)} deterministic episodes with each final agent",
            f"- code: {_commits(results)}",
            *(f"- {text}" for text in versions),
            f"- one core of: {', '.join(processors)}",
        ]
    )


def _origin(rows: Sequence[Row]) -> list[str]:
    """Return a line that says which runs and which code the numbers of a table come from."""
    results = [result for row in rows for result in row.finished]
    if not results:
        return []
    seeds = sorted({result.cell.seed for result in results})
    return ["", f"Seeds {_listed(seeds)}; commits {_commits(results)}."]


def _commits(results: Sequence[Result]) -> str:
    """Return the commits of all attempts, shortened; what stands behind the hash is kept."""
    commits = sorted({commit or "unknown" for result in results for commit in result.attempts})
    return ", ".join(commit[:12] + commit[40:] for commit in commits)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(row: Row | None, bar: Bar | None) -> str:
    if row is None or not row.finished:
        return "failed" if row is not None else "–"
    mean, std = mean_and_std(row.returns)
    text = number(mean) + ("" if std is None else f" ± {number(std, mean)}")
    text = f"**{text}**" if bar is not None and mean >= bar.value else text
    return text + (" †" if row.failed else "")


def _fewer_seeds(row: Row | None, n_seeds: int) -> str:
    """Return how many seeds a mean is of, where it is of fewer than the others."""
    if row is None or not row.finished or len(row.finished) + len(row.failed) == n_seeds:
        return ""
    return f" ({len(row.finished)} seed{'s' * (len(row.finished) > 1)})"


def _title(algo: str) -> str:
    return algo.upper().replace("_", "-")


def _short(bar: Bar | None, algo: str) -> str:
    return "–" if bar is None else f"{number(bar.value)} ({_of(bar, algo)}{bar.source.name})"


def _of(bar: Bar, algo: str) -> str:
    """Return the name of the algorithm that was measured, if it is not ``algo`` itself."""
    return "" if bar.algo == algo else f"{_title(bar.algo)}, "


def _long(bar: Bar | None) -> str:
    return "–" if bar is None else f"{number(bar.value)} {bar.spread}".strip()


def _detail(row: Row) -> str:
    bar, soft = best_bar(row.algo, row.env_id), soft_bar(row.algo, row.env_id)
    if row.finished:
        estimate = interquartile_mean(np.array(row.returns)[:, None])
        iqm, low, high = (
            number(value, estimate.value) for value in (estimate.value, estimate.low, estimate.high)
        )
        interval = f"{iqm} [{low}, {high}]"
        minutes = f"{row.minutes:.1f}"
    else:
        interval = minutes = "–"
    on = "–" if bar is None else f"{_of(bar, row.algo)}{bar.env_id}, {bar.source.name}"
    seeds = str(len(row.finished)) + (f" ({len(row.failed)} failed)" if row.failed else "")
    steps = sorted({int(result.config["n_timesteps"]) for result in row.finished})
    length = ", ".join(f"{n:,}" for n in steps) or "–"
    cells = [row.env_id, length, seeds, _mean(row, bar), interval]
    return _line([*cells, _long(bar), on, _short(soft, row.algo), minutes])


def _notes(rows: Sequence[Row]) -> list[str]:
    failed = [result for row in rows for result in row.failed]
    if not failed:
        return []
    causes = "; ".join(f"{result.cell}: {result.error}" for result in failed)
    return ["", f"† Mean over the seeds that finished. Failed: {causes}"]
