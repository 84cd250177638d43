"""Runners of Apache Beam, an optional dependency."""

import contextlib
import importlib
import io
import logging
import shlex
from collections.abc import Iterator
from typing import Any

from sofnet_jax.host.errors import UserError


def require_beam() -> None:
    """Raise UserError unless Apache Beam is installed."""
    with _importing(), quietly(logging.WARNING):
        importlib.import_module("apache_beam")


def create_runner(options: str) -> tuple[Any, Any]:
    """Parse options such as "--runner=DirectRunner …" into Beam's runner and options.

    Raises UserError.
    """
    with _importing(), quietly(logging.WARNING):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

        usage = io.StringIO()
        try:
            parsed = PipelineOptions(shlex.split(options))
            with contextlib.redirect_stderr(usage):  # Beam prints a page and exits
                parsed.get_all_options()
            name = parsed.view_as(StandardOptions).runner or "DirectRunner"
            return beam.runners.create_runner(name), parsed
        except (AttributeError, ValueError) as error:
            raise UserError(f"--beam: {' '.join(str(error).split())}") from error
        except SystemExit as error:
            raise UserError(f"--beam: {usage.getvalue().strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def quietly(level: int) -> Iterator[None]:
    """Suppress log messages up to a level, e.g. Beam's about clients of services not in use."""
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"Apache Beam or a package of its runner is missing: pip install '.[beam]' "
            f"({' '.join(str(error).split())})"
        ) from error
