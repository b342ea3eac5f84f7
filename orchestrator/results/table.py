"""The results as a text table: one block per benchmark, a row per variant, a column per token limit."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from orchestrator.results.cells import AgainstDense, CellResult, Results

SIGNIFICANT = 0.05
FOOTNOTE = (
    "Accuracy over questions, and its 95 % interval, clustered by question. *: under 10 questions have a right answer, "
    "or a wrong one, so the interval may cover more or less than 95 %. ▼ ▲: worse or better than dense, paired "
    "permutation test, Holm-corrected over the grid, p < 0.05. (n missing: a-b): n draws have no grade; they are left "
    "out, and accuracy would be a if all were wrong, b if all were right. ?: compared with dense over unequal missing "
    "data, which could change the verdict."
)


def final_table(results: Results) -> str:
    """The accuracies of a sweep for a terminal or a log."""
    grid = results.resolved.grid
    table = Table(title=f"{grid.name}: accuracy by thinking-token limit", title_justify="left", pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for limit in grid.token_limits:
        table.add_column(str(limit), justify="right", no_wrap=True)
    cells = {(cell.variant.patch_id, cell.benchmark, cell.limit): cell for cell in results.cells}
    several = len({variant.model_label for variant in results.resolved.variants}) > 1
    for benchmark in results.resolved.benchmarks:
        for variant in results.resolved.variants:
            label = variant.full_label if several else variant.label
            names = [(variant.patch_id, benchmark.name, limit) for limit in grid.token_limits]
            row = [cell_text(cells[name], results.against_dense.get(name)) for name in names]
            table.add_row(benchmark.name if variant is results.resolved.variants[0] else "", label, *row)
        table.add_section()
    text = StringIO()
    # As wide as it needs to be: a log has no width, and two labels could be cut to the same text.
    console = Console(file=text, width=1000, force_terminal=False)
    console.print(table)
    console.print(FOOTNOTE, width=100)
    return text.getvalue().rstrip()


def cell_text(cell: CellResult, against: AgainstDense | None) -> str:
    """`.93 [.88, .97] ▼`, and what is missing: `.75 [.48, .91]*(4 missing: .60-.80) ▼?`."""
    metrics = cell.metrics
    missing = metrics.missing + metrics.ungraded
    if metrics.accuracy is None or metrics.interval is None:
        return f"– ({missing} missing)"
    low, high = metrics.interval.low, metrics.interval.high
    text = f"{_share(metrics.accuracy)} [{_share(low)}, {_share(high)}]{'*' if metrics.interval.note else ' '}"
    if missing:
        text += f"({missing} missing: {_share(metrics.if_missing_wrong)}-{_share(metrics.if_missing_right)}) "
    return text + (_verdict(against) if against else " ")


def _share(value: float) -> str:
    """Two digits, without a leading zero: .03, 1.0."""
    text = f"{value:.2f}"
    return "1.0" if text == "1.00" else text.removeprefix("0")


def _verdict(against: AgainstDense) -> str:
    """▼ or ▲ where the difference is significant, ? where missing data could change that."""
    arrow = " "
    if against.adjusted.holm < SIGNIFICANT:
        arrow = "▼" if against.comparison.difference < 0 else "▲"
    doubtful = against.if_missing.holm >= SIGNIFICANT if arrow != " " else against.comparison.unpaired > 0
    return f"{arrow}?" if doubtful else arrow
