"""The results as a text table: one block per benchmark, a row per variant, a column per token limit."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from orchestrator.results.cells import AgainstDense, CellResult, Results

SIGNIFICANT = 0.05
FOOTNOTE = (
    "Accuracy over questions; ± is half the 95 % interval, clustered by question. ▼ ▲: worse or better than dense, "
    "paired permutation test, Holm-corrected over the grid, p < 0.05. (n missing): draws without a grade, which are "
    "left out and never counted as wrong."
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
    """`0.93 ±.05 ▼`, or how many draws are missing."""
    metrics = cell.metrics
    missing = metrics.missing + metrics.ungraded
    if metrics.accuracy is None or metrics.interval is None:
        return f"– ({missing} missing)"
    half = (metrics.interval.high - metrics.interval.low) / 2
    text = f"{metrics.accuracy:.2f} ±{half:.2f}".replace("±0.", "±.")
    if missing:
        text += f" ({missing} missing)"
    if against is not None and against.adjusted.holm < SIGNIFICANT:
        return f"{text} {'▼' if against.comparison.difference < 0 else '▲'}"
    return f"{text}  "
