"""The full evaluation at the end of a run: best and last on all test images, and how they differ."""

from torch import nn

from crossclass.analysis.evaluate import EvaluationPass
from crossclass.analysis.measure import Measure, compared, evaluate_checkpoint, measurement
from crossclass.analysis.records import ResultFile, result_file
from crossclass.checkpoints.card import load_checkpoint
from crossclass.checkpoints.load import identity, load_model
from crossclass.checkpoints.run_folder import RunFolder
from crossclass.core.device import to_device
from crossclass.core.progress import Progress
from crossclass.core.runtime import Runtime
from crossclass.data import Splits
from crossclass.training.run import Run
from crossclass.training.validation import classifier


def final_evaluation(
    run: Run,
    folder: RunFolder,
    runtime: Runtime,
    splits: Splits,
    progress: Progress,
    last: tuple[int, nn.Module] | None = None,
) -> ResultFile:
    """The full evaluation of best.val, best.test and last on all test images, and best minus last.

    `last` is the epoch that this process trained last, and its network: what holds that epoch is evaluated in
    memory, only networks of other epochs are loaded.
    """
    settings = Measure(seed=run.seed, batch=run.validation.batch)
    attack, passes, results = run.final_attack(), dict[int, EvaluationPass](), []
    for path in map(folder.checkpoint, ("best.val", "best.test", "last")):
        if not path.exists():
            continue
        card = load_checkpoint(path)[1]
        epoch = card.epoch
        in_memory = last is not None and epoch == last[0]
        if last and in_memory:
            network = last[1]
        else:
            network = to_device(load_model(path)[0], runtime.torch_device, runtime.memory_format)
        if epoch not in passes:
            passes[epoch] = evaluate_checkpoint(
                classifier(network), splits, attack, settings, runtime, progress
            )
        who = identity(card, path, run.data, classifier(network))
        results.append(measurement(passes[epoch], who, splits, attack, settings))
    ends = results[0], results[-1]
    epochs = [r.checkpoint.epoch or 0 for r in ends]
    pairs = [compared(*ends, (passes[epochs[0]], passes[epochs[1]]))] if epochs[0] != epochs[1] else []
    return result_file(results, pairs)
