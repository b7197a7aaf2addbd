"""Plots of the panels, from a Prometheus that has scraped: docs/images/dashboard-*.svg."""

import pathlib
import time

# Seconds that a plot shows.
SHOWN = 900


def write(folder, query_range, panels):
    """Writes a page of small plots for each dashboard. Needs matplotlib (Debian: python3-matplotlib)."""
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "servicedb", "font.size": 7, "axes.spines.top": False,
                            "axes.spines.right": False}
    end = time.time()
    for dashboard in dict.fromkeys(file for file, _, _ in panels):
        titles = dict.fromkeys(title for file, title, _ in panels if file == dashboard)
        found = {title: [] for title in titles}
        for file, title, expression in panels:
            if file == dashboard:
                found[title] += query_range(expression, end - SHOWN, end, SHOWN / 90)
        rows = -(-len(found) // 3)
        figure, axes = plt.subplots(rows, 3, figsize=(12, 1.7 * rows), squeeze=False)
        for place, axis in enumerate(axes.flat):
            if place >= len(found):
                axis.axis("off")
                continue
            title, series = list(found.items())[place]
            axis.set_title(title, loc="left", fontsize=8)
            for one in series:
                points = [(float(at) - end, float(value)) for at, value in one["values"]]
                axis.plot(*zip(*points), linewidth=0.8)
            axis.margins(x=0)
            axis.set_xlim(-SHOWN, 0)
            axis.set_xticks([-900, -600, -300, 0], ["-15 min", "-10", "-5", "now"])
            if not series:
                axis.text(0.5, 0.5, "no series: all is well", transform=axis.transAxes, ha="center")
        figure.tight_layout()
        path = pathlib.Path(folder) / f"dashboard-{dashboard}.svg"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
