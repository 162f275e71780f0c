"""Keep the numbers of finished runs and draw them: python results/spine.py OUT RUN...

OUT/seed<seed>.csv is each run's metrics.csv, OUT/measure.json their full evaluations, OUT/settings.yaml what
they share, OUT/curves.svg the figure. No weights, no images. Two runs of one seed are refused.
"""

import json
import sys
from pathlib import Path

import yaml

from crossclass.analysis.records import metrics_csv
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.report import plots

out, runs = Path(sys.argv[1]), [RunFolder.at(Path(a)) for a in sys.argv[2:]]
said = [yaml.safe_load(run.config()) for run in runs]
seeds = [settings.pop("seed") for settings in said]
if len(set(seeds)) < len(seeds):
    raise SystemExit(f"the seeds are {seeds}: of two runs with one seed the second would replace the first")
out.mkdir(parents=True, exist_ok=True)
measures, curves, drops = {}, {}, {}
for run, settings, seed in zip(runs, said, seeds, strict=True):
    (out / f"seed{seed}.csv").write_text(metrics_csv(run.rows()))
    label = f"{run.path.name.rsplit('-', 2)[0]} seed {seed}"
    curves[label], drops[label] = run.rows(), settings["lr_milestones"]
    measures[f"seed{seed}"] = run.read("measure.json")
text = yaml.safe_dump(said[-1], sort_keys=False, default_flow_style=None, width=100)
(out / "settings.yaml").write_text(text)
(out / "measure.json").write_text(json.dumps(measures) + "\n")
plots.save(plots.curves(curves, drops, width=8), out / "curves.svg")
