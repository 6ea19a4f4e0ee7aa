"""Shared test set-up: single precision, and tests that need Sionna skip (or must not)."""

import atexit
import importlib.util
import os
import shutil
import tempfile

import jax
import pytest

# Most of a test's time is compiling, so it is done quickly: few optimisations, and XLA's older code
# generator where JAX (< 0.11) has it, a third of the time together. Continuous integration also
# runs some files as users compile.
_OLDER = "--xla_cpu_use_fusion_emitters=false"
if os.environ.get("JAXRL5G_TEST_COMPILER") != "default":  # workers and children inherit both
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    _flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 11) and _OLDER not in _flags:
        os.environ["XLA_FLAGS"] = f"{_flags} {_OLDER}".strip()
jax.config.update("jax_enable_x64", False)
# Equal programs, of several tests or workers, are compiled once a run. The cache is the run's own:
# another one's would hide what compiles no longer.
if "JAXRL5G_TEST_CACHE" not in os.environ:
    # workers inherit it from the process that made it, which also removes it
    os.environ["JAXRL5G_TEST_CACHE"] = tempfile.mkdtemp(prefix="jaxrl5g-test-compilations-")
    atexit.register(shutil.rmtree, os.environ["JAXRL5G_TEST_CACHE"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAXRL5G_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Modules whose absence is a reason to skip, by marker.
_NEEDS = {"rt": ("sionna.rt",), "sionna": ("sionna.rt", "sionna.sys", "torch")}


def _must_not_skip() -> bool:
    return os.environ.get("JAXRL5G_REQUIRE_SIONNA", "") not in ("", "0")


def _installed(module: str) -> bool:
    # find_spec imports the parent packages, which are empty shells in the wheel.
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _reason_missing(marker: str) -> str | None:
    """Why tests with `marker` cannot run here; None where they can."""
    absent = [module for module in _NEEDS[marker] if not _installed(module)]
    if absent:
        return f"needs the `{marker}` extra: {', '.join(absent)} not installed"
    try:
        from jaxrl5g.channel import check_llvm

        check_llvm()
    except Exception as error:  # its message says which package to install
        return str(error)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons: dict[str, str | None] = {}
    for item in items:
        for marker in _NEEDS:
            if item.get_closest_marker(marker) is None:
                continue
            if marker not in reasons:
                reasons[marker] = _reason_missing(marker)
            reason = reasons[marker]
            if reason is None:
                continue
            if _must_not_skip():
                # Running anyway could abort the interpreter: Dr.Jit does, on too old an LLVM.
                raise pytest.UsageError(f"JAXRL5G_REQUIRE_SIONNA=1, but {marker} tests: {reason}")
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """With JAXRL5G_REQUIRE_SIONNA=1 a skipped parity or ray-tracing test is a failure."""
    report = yield
    marked = any(item.get_closest_marker(marker) for marker in _NEEDS)
    if report.skipped and marked and _must_not_skip():
        report.outcome = "failed"
        report.longrepr = f"JAXRL5G_REQUIRE_SIONNA=1 forbids this skip: {report.longrepr}"
    return report
