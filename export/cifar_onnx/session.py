"""Sessions of onnxruntime: providers, threads, and how these wait."""

import ctypes
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from os import PathLike
from typing import Any, SupportsIndex
from weakref import WeakSet

import onnxruntime as ort

from cifar_onnx.cpus import usable_cpus
from cifar_onnx.errors import ContractError, InputError, ProviderError, one_line

_MOST_THREADS = 1024  # starting more takes minutes
# In matrix products NVIDIA's GPUs would round float32 to 10 bits (TF32): a resize has weights of 13, and is exact.
_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_HINTS = dict.fromkeys(
    ("CUDAExecutionProvider", "TensorrtExecutionProvider"),
    "; it comes with onnxruntime-gpu, which onnxruntime hides where both are installed: pip uninstall onnxruntime, "
    "then pip install --force-reinstall onnxruntime-gpu",
)

_Provider = str | tuple[str, dict[str, Any]]  # its name, or name and options
Providers = Sequence[_Provider] | _Provider | None  # in order of preference; None is the CPU


def session(
    model: bytes | str | PathLike[str],
    name: str,
    providers: Providers = None,
    threads: int | None = None,
    square: int | None = None,
) -> ort.InferenceSession:
    """A session of onnxruntime on the providers that were asked for; where one fails, no other takes its place.

    With `square`, the side of the pictures that it will run, what depends on it alone is computed once: the weights of
    the graph's resize. Pictures of other sides are refused then.

    On CUDA it computes without TF32, unless the provider's options say `use_tf32`. Whether a GPU then gives the same
    pixels as a CPU could not be tried: there was none.

    Raises:
        ContractError: onnxruntime cannot load the model.
        ProviderError: a provider is not active.
        InputError: what should be a provider is none, or no session has so many threads.
    """
    if threads is not None and not (isinstance(threads, SupportsIndex) and 1 <= threads <= _MOST_THREADS):
        raise InputError(f"threads is {threads!r}: it must be a whole number from 1 to {_MOST_THREADS}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Set in any case: left to itself, onnxruntime pins threads to CPUs that a container may not own.
    options.intra_op_num_threads = threads or usable_cpus()
    # After a run the net's threads wait for the next one in a busy loop, and keep others from the CPUs: those that
    # decode pictures, for one. So they wait 30 microseconds only; older versions ignore the setting.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "30")
    if square is not None:
        for length in ("height", "width"):
            options.add_free_dimension_override_by_name(length, square)
    wanted = _wanted(providers)
    _require(wanted, ort.get_available_providers())
    try:
        made = ort.InferenceSession(model, options, providers=wanted, enable_fallback=0)
    except Exception as error:
        reason = one_line(error)
        raise ContractError(f"{name}: onnxruntime {ort.__version__} cannot load it ({reason})") from error
    made.disable_fallback()  # for versions that ignore enable_fallback
    _require(wanted, made.get_providers())
    _kept_in_forks().add(made)
    return made


def run(made: ort.InferenceSession, name: str, outputs: Sequence[str] | None, inputs: Mapping[str, Any]) -> Any:
    """What a session gives, of all outputs by default.

    Raises:
        InputError: onnxruntime cannot run the model.
    """
    try:
        return made.run(outputs, inputs)
    except Exception as error:  # of many kinds: inputs or outputs are not those of the model, memory is short
        reason = one_line(error)
        raise InputError(f"{name}: onnxruntime {ort.__version__} cannot run it ({reason})") from error


@cache
def _kept_in_forks() -> WeakSet[ort.InferenceSession]:
    """Sessions that a forked process never ends, which would hang or crash: a fork copies none of their threads."""
    sessions = WeakSet[ort.InferenceSession]()

    def keep() -> None:
        for each in sessions:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))  # never given back

    if sys.platform != "win32":
        os.register_at_fork(after_in_child=keep)
    return sessions


def _wanted(providers: Any) -> list[tuple[str, dict[str, Any]]]:
    """Full names, and options."""
    if providers is None:
        providers = "cpu"
    pair = isinstance(providers, tuple) and [isinstance(each, dict) for each in providers] == [False, True]
    if pair or isinstance(providers, str) or not isinstance(providers, Iterable):
        providers = [providers]
    wanted = list[tuple[str, dict[str, Any]]]()
    for provider in providers:
        match provider:
            case str(name):
                options = dict[str, Any]()
            case (str(name), dict(options)):
                pass
            case _:
                raise InputError(
                    f"{provider!r} is no execution provider: give its name, such as 'cuda', or name and options, "
                    "such as ('cuda', {'device_id': 1})"
                )
        name = _full_name(name)
        wanted.append((name, _OPTIONS.get(name, {}) | options))
    return wanted


def _full_name(provider: str) -> str:
    known: dict[str, str] = {name.removesuffix("ExecutionProvider").lower(): name for name in ort.get_all_providers()}
    if provider in known.values():
        return provider
    if provider.lower() not in known:
        raise InputError(f"unknown execution provider {provider!r}: onnxruntime knows {', '.join(sorted(known))}")
    return known[provider.lower()]


def _require(wanted: Sequence[tuple[str, dict[str, Any]]], active: Sequence[str]) -> None:
    for provider, _ in wanted:
        if provider not in active:
            hint = _HINTS.get(provider, "") if provider not in ort.get_available_providers() else ""
            raise ProviderError(f"{provider} is not active on this machine: available are {', '.join(active)}{hint}")
