"""What the figures of results share: which results, the styles of configurations, captions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from figures import COLUMN, InputError, Parser, powers_of_two, run, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "experiments"))

# The figures have these from here, as this is where their folder becomes known.
import analysis  # noqa: E402
import captions  # noqa: E402
import captions_cpu  # noqa: E402
import captions_routing  # noqa: E402
import captions_stages  # noqa: E402
import results as stored  # noqa: E402
from captions import Caption  # noqa: E402
from results import CONFIGS, ROOT, ResultError, Results, size  # noqa: E402

__all__ = ["CONFIGS", "COLUMN", "PAGE", "STEP_COLOURS", "Results", "analysis", "captions",
           "captions_cpu", "captions_routing", "captions_stages", "legend", "length_axis", "look",
           "main", "room_for_legend", "size", "stored", "style"]

PAGE = 7.0  # inches: both columns
# Of Okabe and Ito, by the number of steps; more than four steps share the last ones.
STEP_COLOURS = {1: "#000000", 2: "#0072B2", 3: "#E69F00", 4: "#009E73", 5: "#666666",
                6: "#A6A6A6"}
RULES = {"dense": ("P", "-"), "nstep": ("o", "-"), "even": ("s", "--"), "paper": ("^", ":"),
         "released": ("D", "-."), "tight": ("v", "--"), "power": ("^", ":")}
# The two other schedules of N = 2 are told apart from it by colour too.
OTHER_COLOURS = {"paper": "#56B4E9", "released": "#CC79A7"}


def look(steps: int, rule: str) -> dict[str, Any]:
    """Colour by N, marker, filling and line by rule."""
    colour = OTHER_COLOURS.get(rule, STEP_COLOURS[min(steps, 6)])
    marker, line = RULES[rule]
    return {"color": colour, "marker": marker, "linestyle": line, "linewidth": 0.9,
            "markersize": 3.2, "markeredgewidth": 0.7,
            "markerfacecolor": "white" if rule == "even" else colour}


def style(config: str) -> dict[str, Any]:
    """How a configuration is drawn, in every figure."""
    return look(CONFIGS[config].steps, CONFIGS[config].rule)


def legend(figure: Figure, configs: list[str], columns: int) -> None:
    """The configurations, above the panels."""
    handles = [Line2D([], [], **style(config)) for config in configs]
    figure.legend(handles, [CONFIGS[config].label for config in configs], ncol=columns,
                  loc="upper center", handlelength=2.2, borderpad=0)


def room_for_legend(figure: Figure, inches: float) -> None:
    """Keeps the top of a figure free."""
    share = inches / figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - share))


def length_axis(axes: Axes, lengths: list[float], label: str = "length $L$") -> None:
    """Lengths on a logarithmic axis, in powers of two."""
    axes.set_xscale("log")
    powers_of_two(axes, np.array(lengths))
    axes.set_xlabel(label)


def main(doc: str, caption: Callable[[Results], Caption],
         draw: Callable[[Results], Figure]) -> None:
    """The program of a figure: reads results, writes STEM.{pdf,svg,png} and STEM.md."""
    def program() -> None:
        name = Path(sys.argv[0]).name
        parser = Parser(doc, f"  plots/{name} --output figures/{Path(name).stem}")
        parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER",
                            help="where cpu/ and h100/ are (default: results)")
        parser.add_argument("--partial", action="store_true",
                            help="lengths that were not timed leave gaps")
        arguments = parser.parse_args()
        results = Results(arguments.results, arguments.partial)
        try:
            text = caption(results)
            if not results.sources:
                raise InputError(f"{arguments.results}: no results for this figure")
            source = f"{Path(name).stem} {results.digest()}"
            figure = draw(results)
        except ResultError as error:
            raise InputError(str(error)) from None
        save(figure, arguments.output, text.markdown(), source)

    run(program)
