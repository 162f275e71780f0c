"""Keep the numbers of finished runs and draw them: python results/spine.py OUT RUN...

OUT/<name>.csv is each run's metrics.csv, OUT/measure.json their full evaluations, OUT/settings.yaml what
they share, OUT/curves.svg the figure. No weights, no images.
"""

import json
import sys
from pathlib import Path

import yaml

from crossclass import plot
from crossclass.store import RunFolder, table

out, runs = Path(sys.argv[1]), [RunFolder.at(Path(a)) for a in sys.argv[2:]]
out.mkdir(parents=True, exist_ok=True)
measures, curves, drops = {}, {}, {}
for run in runs:
    settings = yaml.safe_load(run.config())
    name = f"seed{settings.pop('seed')}"
    (out / f"{name}.csv").write_text(table(run.rows()))
    label = run.path.name.rsplit("-", 2)[0] + " seed " + name.removeprefix("seed")
    curves[label], drops[label] = run.rows(), settings["drops"]
    measures[name] = run.read("measure.json")
text = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=100)
(out / "settings.yaml").write_text(text)
(out / "measure.json").write_text(json.dumps(measures) + "\n")
plot.save(plot.curves(curves, drops, width=8), out / "curves.svg")
