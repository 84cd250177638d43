"""Runners of Apache Beam, which is installed where somebody wants one."""

import contextlib
import importlib
import io
import logging
import shlex
from collections.abc import Iterator
from typing import Any

from sofnet_jax.host.errors import UserError


def require_beam() -> None:
    """Raises UserError unless Apache Beam is installed."""
    with _importing(), quietly(logging.WARNING):
        importlib.import_module("apache_beam")


def create_runner(options: str) -> tuple[Any, Any]:
    """A runner and its options as Beam takes them, of "--runner=DirectRunner …".

    Raises UserError.
    """
    with _importing(), quietly(logging.WARNING):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

        said = io.StringIO()
        try:
            parsed = PipelineOptions(shlex.split(options))
            with contextlib.redirect_stderr(said):  # a page, and the end of the process
                parsed.get_all_options()
            name = parsed.view_as(StandardOptions).runner or "DirectRunner"
            return beam.runners.create_runner(name), parsed
        except (AttributeError, ValueError) as error:
            raise UserError(f"--beam: {' '.join(str(error).split())}") from error
        except SystemExit as error:
            raise UserError(f"--beam: {said.getvalue().strip().splitlines()[-1]}") from error


@contextlib.contextmanager
def quietly(level: int) -> Iterator[None]:
    """Without what Beam logs up to this level: of clients of services that nobody wants here."""
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
            f"this needs Apache Beam, and what its runner does: pip install -e '.[beam]' "
            f"({' '.join(str(error).split())})"
        ) from error
