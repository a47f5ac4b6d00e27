"""What an instance is launched with: its size and its manifest; and what is said where there is no room for it.

Used by the loop `place`.
"""

from __future__ import annotations

from tidemill.domain.ids import InstanceId
from tidemill.domain.tuning import model_key
from tidemill.loops.context import Context, Job
from tidemill.ports.engine import Resources
from tidemill.store.habits import hints_for
from tidemill.wire.quantities import format_bytes
from tidemill_runtime.contract import CONTRACT_VERSION, Channel, Manifest, Pins

_MILLICORES_MIN = 100


def manifest_of(context: Context, job: Job, instance: InstanceId, limits: Resources) -> Manifest:
    """All that the instance is told. Its token is good from now on."""
    spec, settings, run = job.spec, context.limits, job.run
    token = context.tokens.issue(instance, context.clock.now())
    return Manifest(
        version=CONTRACT_VERSION,
        task=run.task,
        run=run.id,
        instance=instance,
        channel=Channel("http", url=context.runner_url(job.region), token=token),
        model=run.model_path,
        code=run.code_path,
        command=spec.command.contract() if spec.command else None,
        input=job.checked.formats.input,
        result=job.checked.formats.result,
        millicores=limits.millicores,
        memory_bytes=limits.memory_bytes,
        scratch="",  # the engine's affair
        record_timeout_s=spec.record_timeout,
        commit_every_s=settings.commit_every_s,
        orphan_after_s=settings.orphan_after_s,
        pins=Pins(spec.batch.size, spec.batch.processes, spec.batch.threads),
        env=dict(spec.env),
        function=spec.function,
        hints=_hints(context, job),
    )


def _hints(context: Context, job: Job) -> dict[str, Pins]:
    """What earlier runs with the model ended with, by machine."""
    model = model_key(job.task.model_digest, job.task.code_digest, job.spec.function)
    if model is None:
        return {}
    with context.store.read() as tx:
        return hints_for(tx, job.task.owner.account, model)


def resources_of(job: Job, capacity: Resources) -> Resources:
    """What each instance of the run gets: as asked for, else its share of all that the engine has."""
    wanted, count = job.spec.resources, job.run.instances
    return Resources(
        millicores=wanted.cpu or max(_MILLICORES_MIN, capacity.millicores // count),
        memory_bytes=wanted.memory or capacity.memory_bytes // count,
        gpu_percent=round(wanted.gpu * 100),
    )


def fitting(each: Resources, free: Resources, wanted: int) -> int:
    """How many instances of this size fit."""
    by_cpu = free.millicores // each.millicores
    by_memory = free.memory_bytes // each.memory_bytes
    return max(0, min(wanted, by_cpu, by_memory))


def less(free: Resources, each: Resources, count: int) -> Resources:
    return Resources(free.millicores - count * each.millicores, free.memory_bytes - count * each.memory_bytes)


def shortage(each: Resources, free: Resources, capacity: Resources) -> str:
    """What is asked for and what there is, in words."""
    asked = f"An instance needs {each.millicores / 1000:g} cores and {format_bytes(each.memory_bytes)}"
    if each.millicores > capacity.millicores or each.memory_bytes > capacity.memory_bytes:
        has = f"{capacity.millicores / 1000:g} cores and {format_bytes(capacity.memory_bytes)}"
        return f"{asked}; the engine has {has} in all."
    left = f"{max(0, free.millicores) / 1000:g} cores and {format_bytes(max(0, free.memory_bytes))}"
    return f"{asked}; {left} are free."
