"""The words of a command line, before they are parsed: its config files, and the checkpoint that it starts from."""

import argparse
import hashlib
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from cifar_lightning import runs
from cifar_lightning.cli.choices import in_order, names_class
from cifar_lightning.cli.config_file import given_names, mapping
from cifar_onnx import InputError

_HEADER, _DIGEST = "# python -m cifar_lightning ", "  # sha256 "
_APPENDING = re.compile(r"--([\w.]+)\+(=|$)")
_SWITCHES = {"--allow_custom_classes", "--print_config"}  # of `verify`, which need no value behind them


@dataclass(frozen=True)
class Command:
    """A command line with its config files in front, so that what was typed beats them wherever it stands.

    Attributes:
        words: the command line.
        configs: the options that name its config files.
        import_folders: where classes of the user's own may lie: beside its config files and those that the config of a
            run was made from, and where that began.
        line: the command line as it was typed, but for `--ckpt_path` and `--print_config`.
        digest: of what its config files hold; empty where there are none.
        ckpt_path: the checkpoint that it starts from, if any.
        going_on: the folder of the run that `fit` goes on with, if any.
        allow_custom: whether the checkpoint may name any class.
        named: texts by which it and its config files name classes, and set these: the checkpoint may have the same.
        appended: lists that are appended to, and that neither a config file nor another word gives.
        contents: what its config files say.
    """

    words: list[str]
    configs: list[str]
    import_folders: list[Path]
    line: str
    digest: str
    ckpt_path: str | None
    going_on: Path | None
    allow_custom: bool
    named: frozenset[str]
    appended: Sequence[str]
    contents: Sequence[dict[str, Any]]

    @property
    def typed_keys(self) -> list[str]:
        """The keys that were typed, without `init_args`."""
        return [word[2:].partition("=")[0].replace(".init_args", "") for word in self.words if word.startswith("--")]


def read(words: Sequence[str]) -> Command:
    """Find the config files and the checkpoint in a command line.

    Raises:
        InputError: a config file cannot be read, or is no mapping of options.
    """
    words = _long(words)
    configs, rest = taken(words, "-c", "--config")
    shown = [word for word in words if word.startswith("--print_config")]
    _, typed = taken([word for word in words if word not in shown], "--ckpt_path")
    _, rest = taken(rest, "--ckpt_path")
    given = {path: mapping(Path(path)) for path in configs}
    named = given_names(rest, given.values())  # the run's own may be of others
    rest = in_order(rest)
    settings = beginning(words, given)
    ckpt_path, going_on, sources = settings.get("ckpt_path"), None, configs
    line, digest = " ".join(shlex.join(typed).splitlines()), _digest(configs)
    if words[:1] == ["fit"] and ckpt_path == "last":
        bare = not configs and not any(word.startswith(("--data", "--model")) for word in rest)
        going_on = _unfinished(settings, line if bare else None)
        ckpt_path = going_on / runs.LAST if going_on else None
    if going_on:
        own = going_on / "config.yaml"
        try:
            given[str(own)] = mapping(own)
        except InputError as error:
            how = f"--ckpt_path {ckpt_path} and --config of the file that began it"
            why = str(error).removesuffix(": name a config file")
            raise InputError(f"{why}; without it the run goes on in a new folder only, with {how}") from None
        sources, made = [*configs, str(own)], commands(own)
        if made.get(line) == digest:  # has been done: lists must not be appended to once more
            configs, rest = [str(own)], [*rest[:1], *shown]
        elif line in made:  # nor to those that are in there
            say(f"{' and '.join(configs)} changed since {own} was written from it: the changed file is used")
        else:
            configs = [str(own), *configs]
    elif words[:1] == ["fit"] and ckpt_path and not configs:
        own = runs.folder_of(str(ckpt_path)) / "config.yaml"
        if own.exists():
            say(f"a checkpoint holds no trainer settings and no callbacks: --config {own} adds those of its run")
    checkpoint = ["--ckpt_path", str(ckpt_path or "null")] if "ckpt_path" in settings else []
    options = [word for path in configs for word in ("--config", path)]
    contents = [given[path] for path in configs]
    lists = {match[1]: match[1].replace(".init_args", "") for word in rest if (match := _APPENDING.match(word))}
    return Command(
        words=[*rest[:1], *options, *rest[1:], *checkpoint],
        configs=options,
        import_folders=_import_folders(sources),
        line=line,
        digest=digest,
        ckpt_path=str(ckpt_path) if ckpt_path else None,
        going_on=going_on,
        allow_custom=settings.get("allow_custom_classes") is True,
        named=named,
        appended=[key for key, option in lists.items() if not names_class(option, rest, contents)],
        contents=contents,
    )


def _unfinished(settings: dict[str, Any], bare: str | None) -> Path | None:
    """The run that `fit --ckpt_path last` goes on with, or None where a new one begins; says which.

    A bare command says nothing of data and model. Where there is a run already, it is refused, since it would begin one
    with the defaults; but one that died before its first checkpoint begins anew with the command that began it.

    Args:
        settings: from `beginning`.
        bare: the command line, if it is bare.
    """
    root, experiment = runs.root(settings.get("trainer.default_root_dir")), settings["experiment"]
    runs.check_name(experiment)
    if found := runs.unfinished(root, experiment, rank()):
        say(f"resuming {found}")
        return found
    nothing, longer = f"nothing to resume in {root / experiment}", ""
    if newest := runs.newest_if_finished(root / experiment):
        more = "--trainer.max_epochs N, N above what it has done"
        longer = f"; to train the newest run for longer: --ckpt_path {newest / runs.LAST} {more}"
        if bare:
            raise InputError(f"{nothing}: {newest} has finished{longer}")
    if bare and rank() == 0:  # whose run the others may find, without a checkpoint
        begun = [run for run in runs.folders(root / experiment) if not runs.facts(run).get("finished")]
        if busy := [*filter(runs.held, begun)]:
            raise InputError(f"{nothing}: another process is training in {busy[-1]}")
        if begun and bare not in commands(config := begun[-1] / "config.yaml"):
            how = f"--config {config}" if config.exists() else "its own settings"
            raise InputError(f"{nothing}: {begun[-1]} has no checkpoint yet: begin it anew with {how}")
    say(f"{nothing}: a new run{longer}")
    return None


def _long(words: Sequence[str]) -> Sequence[str]:
    """`verify model.onnx --against P`, in whatever order, with the options that it stands for."""
    if words[:1] != ["verify"]:
        return words
    rest = [re.sub(r"^--against(?=$|=)", "--ckpt_path", word) for word in words[1:]]
    for at, (before, word) in enumerate(pairwise(["", *rest])):
        valued = before.startswith("-") and "=" not in before and before not in _SWITCHES
        if not valued and not word.startswith("-"):
            return ["verify", *rest[:at], "--file", *rest[at:]]
    return ["verify", *rest]


def commands(config: Path) -> dict[str, str]:
    """The command lines that made the config of a run, with digests of their config files."""
    return stated(config.read_text(encoding="utf-8")) if config.exists() else {}


def stated(config: str) -> dict[str, str]:
    """Those that stand at the top of its text."""
    made = (line.removeprefix(_HEADER).partition(_DIGEST) for line in config.splitlines() if line.startswith(_HEADER))
    return {command: digest for command, _, digest in made}


def _import_folders(configs: Iterable[str]) -> list[Path]:
    """The folders of config files and, where one is that of a run, where it was begun and those of its config files."""
    found = []
    for config in map(Path, configs):
        begun = [Path(str(place)) for place in (runs.facts(config.parent).get("begun_in"),) if place]
        found += [config.parent, *begun]
        for line in commands(config):
            with suppress(ValueError):  # quotes that nobody closed: it was written by hand
                named = taken(shlex.split(line), "-c", "--config")[0]
                found += [(place / path).parent for place in (*begun, Path()) for path in named]
    return found


def header(made: Mapping[str, str]) -> str:
    """What `stated` reads."""
    return "".join(f"{_HEADER}{command}{digest and _DIGEST + digest}\n" for command, digest in made.items())


def _digest(configs: Sequence[str]) -> str:
    return hashlib.sha256(b"\0".join(Path(path).read_bytes() for path in configs)).hexdigest()[:16] if configs else ""


def taken(words: Sequence[str], *options: str) -> tuple[list[str], list[str]]:
    """The values of an option, and the words without it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*options, action="append", nargs="?", dest="values", default=[])
    found, rest = parser.parse_known_args(words)
    if not all(found.values):
        raise InputError(f"{options[-1]} has no value")
    return found.values, rest


def beginning(words: Sequence[str], configs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What decides where a command starts from: typed, or else from what the config files say, which is checked."""
    settings: dict[str, Any] = {"experiment": "cnn"}
    for path, config in configs.items():
        if "config" in config:
            raise InputError(f"{path}: config is no key of a config file: name each file with --config")
        for group in ("trainer", "model", "data"):
            if group in config and config[group] is None:
                raise InputError(f"{path}: {group} is empty: give its settings, or leave it out")
        trainer = config.get("trainer")
        nested = {f"trainer.{key}": value for key, value in trainer.items()} if isinstance(trainer, dict) else {}
        settings |= {**config, **nested}
    for name in ("ckpt_path", "experiment", "trainer.default_root_dir"):
        values, _ = taken(words, f"--{name}")
        if values:
            settings[name] = values[-1]
    if "--allow_custom_classes" in words:
        settings["allow_custom_classes"] = True
    return settings


def rank() -> int:
    """Rank of this process among those of one run, 0 where it is alone."""
    return int(getattr(rank_zero_only, "rank", 0))


@rank_zero_only
def say(line: str) -> None:
    """Print a line once, where several processes are one run."""
    print(line, file=sys.stderr)
