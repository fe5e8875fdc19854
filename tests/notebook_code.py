"""A notebook's code in this process, quick where a kernel of its own takes seconds to start."""

import json

from matplotlib import pyplot as plt

from survpack import paths


def run(stage: str, told=lambda shown: shown) -> list:
    """Its cells in order, of cohort `toy`; gives what it printed and displayed, the latter by `told`."""
    cells = json.loads((paths.NOTEBOOKS / f"{stage}.ipynb").read_text(encoding="utf-8"))["cells"]
    said: list = []
    known = {"display": lambda *shown: said.extend(map(told, shown)), "print": lambda *told: said.extend(told)}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]).replace("%matplotlib inline", ""), known)
            known["cohort"] = "toy"
    plt.close("all")
    return said
