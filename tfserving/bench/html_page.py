"""HTML pages with charts as inline SVG: a page is one file that needs no network and no script.

matplotlib draws the charts. It is in requirements.txt anyway, and an SVG with text as text has some 20 kB;
libraries for interactive charts put megabytes of JavaScript into the file, or load it from the network.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { width: 100%; height: auto; }
.refused { color: #a00; }
pre { overflow: auto; background: #f5f5f5; padding: 1rem; }
"""


def as_page(title: str, parts: Sequence[str], data: Any) -> str:
    """The page.

    Args:
        title: its heading, as text.
        parts: what follows, as HTML.
        data: all figures as JSON values, which the page has at its end.
    """
    figures = json.dumps(data, indent=1, ensure_ascii=False)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{"".join(parts)}
<details><summary>All figures as JSON</summary><pre>{html.escape(figures)}</pre></details>
</body>
</html>
"""


def draw_chart(plot: Callable[[Any, T], None], data: T) -> str:
    """A chart as an SVG element.

    Args:
        plot: draws `data` on the axes of matplotlib that it gets.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # text as text makes the file small; a fixed salt makes it the same for the same results
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.__name__}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot()
        plot(axes, data)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(alpha=0.3)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    # several charts on a page must not share the names of their clip paths
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{plot.__name__}-", text[text.index("<svg") :])
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
