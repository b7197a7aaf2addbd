#!/usr/bin/env python3
"""Writes docs/dashboards.md: each panel of the dashboards with its queries. With --check, says whether it is current."""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "dashboards.md"
HEAD = """# Dashboards

Each panel of the two Grafana dashboards of the chart (`metrics.dashboards.enabled`), with its queries. `$namespace` and `$servicedb` are the dashboard's variables, `$__rate_interval` is Grafana's. `dev/alerts/panels.py` writes this page from the dashboards; `dev/test-alerts.sh live` runs every query in a Prometheus that scrapes a database under `pgbench`, and `dev/test-alerts.sh dashboards` checks the dashboards against Grafana's own types. The plots are of such a run with all its faults (`dev/test-alerts.sh plots`).
"""


def page():
    text = HEAD
    for name in ("fleet", "database"):
        dashboard = json.loads((ROOT / f"charts/servicedb/files/dashboards/{name}.json").read_text())
        text += f"\n## {dashboard['title']}\n\n{dashboard['description']}\n"
        plots = f"images/dashboard-{name}.svg"
        if (PAGE.parent / plots).exists():
            text += f"\n![The panels as plots]({plots})\n"
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                text += f"\n### {panel['title']}\n"
                continue
            unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
            what = panel.get("description", "").strip()
            shown = f"{panel['type']}, {unit}" if unit else panel["type"]
            text += f"\n**{panel['title']}** ({shown}). {what}".rstrip() + "\n\n```promql\n"
            text += "".join(f"{target['expr']}\n" for target in panel["targets"]) + "```\n"
    return text


if sys.argv[1:] == ["--check"]:
    if not PAGE.exists() or PAGE.read_text() != page():
        sys.exit(f"{PAGE.relative_to(ROOT)} is not what the dashboards have: run dev/alerts/panels.py")
else:
    PAGE.write_text(page())
