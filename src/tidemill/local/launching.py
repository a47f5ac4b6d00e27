"""What an instance of `tidemill run` is told at its start. Used by `runner`."""

from __future__ import annotations

from collections.abc import Mapping

from tidemill.engines.children import Child
from tidemill.local.opening import Opened
from tidemill.settings import Settings
from tidemill_runtime.contract import CONTRACT_VERSION, Channel, Manifest, Pins


def manifest_of(opened: Opened, settings: Settings, instance: str, child: Child, hints: Mapping[str, Pins]) -> Manifest:
    """hints: what earlier runs with the model ended with, by machine."""
    task, model = opened.task, opened.model
    return Manifest(
        version=CONTRACT_VERSION,
        task=opened.id,
        run=opened.run,
        instance=instance,
        channel=Channel("fd", fd=child.fd),
        model=str(model.model) if model.model else None,
        code=str(model.code) if model.code else None,
        command=task.command.contract() if task.command is not None else None,
        input=opened.checked.formats.input,
        result=opened.checked.formats.result,
        millicores=opened.resources.millicores,
        memory_bytes=opened.resources.memory_bytes,
        scratch=child.scratch,
        record_timeout_s=task.record_timeout,
        commit_every_s=settings.limits.commit_every_s,
        die_with_parent=True,
        pins=Pins(task.batch.size, task.batch.processes, task.batch.threads),
        hints=dict(hints),
        env={"TMPDIR": child.scratch, **task.env},
        function=task.function,
    )
