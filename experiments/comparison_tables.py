"""Comparisons of runs as rows of tables and as JSON."""

from dataclasses import asdict

from experiments.comparing import Comparison, Group, describe_repetition


def group_row(group: Group) -> dict:
    """A group's row of the table, in percent."""
    summary = group.summary
    return {
        "group": group.name,
        "n": summary.n,
        "mean": f"{100 * summary.mean:.2f}",
        "sd": "" if summary.sd is None else f"{100 * summary.sd:.2f}",
        "95 % interval": _interval(summary.low, summary.high, ".2f"),
        "selected on": group.selected_on,
    }


def comparison_row(comparison: Comparison) -> dict:
    """A comparison's row of the table, in points of a percent."""

    def points(value, form):
        return "" if value is None else f"{100 * value:{form}}"

    return {
        "comparison": f"{comparison.second}  -  {comparison.first}",
        "n": comparison.n,
        "difference": points(comparison.difference, "+.2f"),
        "95 % interval": _interval(comparison.low, comparison.high, "+.2f"),
        "p": comparison.p,
        "p (Holm)": comparison.p_holm,
        "would have seen": points(comparison.detectable, ".2f"),
    }


def _interval(low, high, form):
    return "" if low is None else f"[{100 * low:{form}}, {100 * high:{form}}]"


def mcnemar_rows(comparisons: list[Comparison]) -> list[dict]:
    """The tests of single pairs of models, a row each."""
    return [
        {
            "single models": f"{comparison.second}  -  {comparison.first}",
            "run": row["repetition"],
            "images": row["images"],
            "only first right": row["only_first"],
            "only second right": row["only_second"],
            "p (McNemar)": row["p"],
            "p (Holm)": row["p_holm"],
        }
        for comparison in comparisons
        for row in comparison.mcnemar
    ]


def as_json(
    metric: str, groups: list[Group], comparisons: list[Comparison], notes: list[str]
) -> dict:
    """Everything that was found, shares in [0, 1]."""
    return {
        "metric": metric,
        "groups": [
            {
                "name": group.name,
                **asdict(group.summary),
                "selected_on": group.selected_on,
                "runs": [
                    {
                        "directory": str(run.directory),
                        "repetition": describe_repetition(run.repetition),
                        "score": score,
                    }
                    for run, score in zip(group.runs, group.scores, strict=True)
                ],
            }
            for group in groups
        ],
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "notes": notes,
    }


def csv_rows(groups: list[Group], comparisons: list[Comparison]) -> list[dict]:
    """A row per comparison with all digits, shares in [0, 1]; of one group alone its summary."""
    if not comparisons:
        return [{"group": group.name, **asdict(group.summary)} for group in groups]
    nested = ("mcnemar", "alone")
    return [{k: v for k, v in asdict(c).items() if k not in nested} for c in comparisons]
