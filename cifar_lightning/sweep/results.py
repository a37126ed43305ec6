"""Results of a sweep: a table of its trials, the config of the best one, and charts."""

import csv
import io
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from cifar_lightning import runs
from cifar_lightning.cli.command import header, stated
from cifar_lightning.cli.config_file import dump_yaml, load_yaml
from cifar_lightning.cli.next_command import say_next
from cifar_lightning.files import write_whole
from cifar_lightning.sweep.charts import draw
from cifar_lightning.sweep.plan import Plan
from cifar_lightning.sweep.study import counted, failed
from cifar_lightning.trusted_classes import custom_classes
from cifar_onnx import InputError, shell

_BEST = 5  # trials in the table
_WIDTH = 24  # letters of a value there


def write(study: Study, plan: Plan) -> None:
    """Write best.yaml, trials.csv and charts, and print a table.

    Raises:
        InputError: every trial has failed.
    """
    trials = counted(study)
    ended = [trial for trial in trials if trial.state.is_finished()]
    done = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    done.sort(key=lambda trial: float(trial.value or 0), reverse=plan.mode == "max")
    running = len(trials) - len(ended)
    others = f"{running} more {'is' if running == 1 else 'are'} being tried by other processes" if running else ""
    with FileLock(plan.folder / ".results.lock"):  # two processes may come to the end at the same time
        write_whole(plan.folder / "trials.csv", _csv(ended, plan).encode())
        if ended and all(map(failed, ended)):
            raise InputError(f"all {len(ended)} trials have failed, the last one: {ended[-1].user_attrs['error']}")
        if not done:
            none = [f"pruned or failed: {len(ended)}"] * bool(ended) + [others] * bool(others)
            print(f"no trial has finished: {', '.join(none)}")
            return
        write_whole(plan.folder / "best.yaml", _config(done[0], len(ended), plan).encode())
        charts = draw(ended, plan)
    print(f"\n{_table(done[:_BEST], plan)}\n")
    print(f"wrote best.yaml, trials.csv, {', '.join(charts)} in {plan.folder}")
    if others:
        print(others)
    validations = {runs.facts(Path(trial.user_attrs["run"])).get("validation") for trial in done} - {None}
    if len(validations) > 1:
        print("not comparable as they are: not all trials were validated on the same images")
    best = done[0].user_attrs
    again = load_yaml(best["config"])
    own = ["--allow_custom_classes", "--config", Path(best["run"], "config.yaml")]
    custom = own if custom_classes([again["model"], again["data"]]) else []
    print("to train the best again:", _again(plan))
    say_next("test", "--ckpt_path", best["kept"], *custom)


def line(trial: FrozenTrial, plan: Plan) -> str:
    """What became of a trial, in one line."""
    value = plan.measured(trial)
    words = [f"trial {trial.number}", f"{plan.monitor} {value:.4f}" if value is not None else "failed"]
    if trial.state == TrialState.PRUNED:
        words.append(f"pruned after {len(trial.intermediate_values)}")
    words.append(f"{_seconds(trial):.0f} s")
    words += [f"{name} {_shown(trial.params[key])}" for key, name in plan.names.items() if key in trial.params]
    if failed(trial):
        words.append(trial.user_attrs["error"])
    return "  ".join(words)


def _seconds(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _table(trials: list[FrozenTrial], plan: Plan) -> str:
    short = plan.names
    rows = [["trial", plan.monitor, *short.values()]]
    rows += [[str(each.number), f"{each.value:.4f}", *(_shown(each.params[key]) for key in short)] for each in trials]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _csv(trials: list[FrozenTrial], plan: Plan) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["trial", "state", plan.monitor, "validations", "seconds", "run", "error", *plan.space])
    for trial in trials:
        writer.writerow(
            [
                *(trial.number, "failed" if failed(trial) else trial.state.name.lower(), plan.measured(trial)),
                *(len(trial.intermediate_values), f"{_seconds(trial):.1f}"),
                *(trial.user_attrs.get(name) for name in ("run", "error")),
                *(trial.params.get(key) for key in plan.space),
            ]
        )
    return buffer.getvalue()


def _config(best: FrozenTrial, count: int, plan: Plan) -> str:
    """The whole config of a trial, as an experiment of its own."""
    text = best.user_attrs["config"]
    config = load_yaml(text)
    config |= {"experiment": f"{plan.folder.name}-best", "ckpt_path": best.user_attrs.get("started_from")}
    # From the folders of the config files that it was made from, classes may be imported.
    top = (
        f"# Trial {best.number} of {plan.folder}: {plan.monitor} {best.value:.6g}, the best of {count}.\n"
        f"{header(stated(text))}# To train it again:\n# {_again(plan)}\n"
    )
    return top + dump_yaml(config)


def _again(plan: Plan) -> str:
    return shell.line("python", "-m", "cifar_lightning", "fit", "--config", plan.folder / "best.yaml")
