"""The chart's rules by their form, which is a line for each field: Python's own library reads no YAML."""

import re


def expressions(text):
    """Each alert's name with its expression."""
    for part in text.split("  - alert: ")[1:]:
        name, rest = part.split("\n", 1)
        body = re.match(r"    expr: \|-\n((?:      .*\n)+)", rest).group(1)
        yield name, "\n".join(line.strip() for line in body.splitlines())


def shortened(text, limits):
    """The rules, those that are named with other limits and without their time to wait."""
    head, *parts = text.split("  - alert: ")
    changed = []
    for part in parts:
        name = part.split("\n", 1)[0]
        if name in limits:
            for before, after in limits[name]:
                assert before in part, f"{name} has no {before}"
                part = part.replace(before, after)
            part = re.sub(r"    for: \w+\n", "", part)
        changed.append(part)
    return "  - alert: ".join([head, *changed])
