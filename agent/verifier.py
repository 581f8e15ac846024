"""Proves a module before it counts: its ready probe, then its golden samples."""

from __future__ import annotations

from urllib.parse import urljoin

import msgspec

from agent.core.plan import InstanceState, ModuleSpec
from agent.core.ports import Clock, Prober, Runtime
from protocol.errors import Code, DeviceError, FleetError
from protocol.golden import mismatch
from protocol.manifest import GoldenSample, GoldenSamples, Probe

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 10.0
_OK = 200


class Verifier:
    """Asks a running instance whether it is what the manifest promises."""

    def __init__(self, runtime: Runtime, prober: Prober, clock: Clock) -> None:
        self._runtime = runtime
        self._prober = prober
        self._clock = clock

    async def verify(self, spec: ModuleSpec) -> None:
        """Return when the module is ready and answers rightly.

        Raises:
            FleetError: `module-start-failed`, `probe-failed`, `golden-mismatch`.
        """
        endpoint = await self._ready(spec)
        if spec.golden is not None:
            await self._golden(spec, endpoint, spec.golden)

    async def _ready(self, spec: ModuleSpec) -> str:
        probe = spec.ready_probe
        seconds = probe.timeout_seconds if probe else _ANSWER_SECONDS
        deadline = self._clock.monotonic() + seconds
        while True:
            endpoint = await self._endpoint(spec)
            if endpoint is not None and (probe is None or await self._answers(endpoint, probe)):
                return endpoint
            if self._clock.monotonic() >= deadline:
                raise DeviceError(
                    f"module {spec.name!r} was not ready after {seconds:g} s",
                    code=Code.PROBE_FAILED,
                    hint=f"read its log: `rimward-agent logs {spec.name}`",
                )
            await self._clock.sleep(_POLL_SECONDS)

    async def _endpoint(self, spec: ModuleSpec) -> str | None:
        observed = await self._runtime.observe()
        for instance in observed.instances:
            if instance.id == spec.instance_id:
                if instance.state is InstanceState.EXITED:
                    raise await self._ended(spec, instance.exit_code)
                return instance.endpoint
        return None

    async def _ended(self, spec: ModuleSpec, exit_code: int | None) -> DeviceError:
        tail = (await self._runtime.logs(spec.instance_id, tail=3)).strip().replace("\n", " | ")
        return DeviceError(
            f"module {spec.name!r} ended with code {exit_code}"
            + (f": {tail[-300:]}" if tail else ""),
            code=Code.MODULE_START_FAILED,
            hint=f"read its log: `rimward-agent logs {spec.name}`",
        )

    async def _answers(self, endpoint: str, probe: Probe) -> bool:
        if probe.kind == "tcp":
            return True  # an endpoint that resolves is an open port
        try:
            status, _ = await self._prober.request(
                urljoin(endpoint, probe.path), None, timeout_seconds=_ANSWER_SECONDS
            )
        except FleetError:
            return False
        return status == _OK

    async def _golden(self, spec: ModuleSpec, endpoint: str, golden: GoldenSamples) -> None:
        url, wrong = urljoin(endpoint, golden.path), []
        for number, sample in enumerate(golden.samples, start=1):
            if problem := await self._ask(url, sample):
                wrong.append(f"sample {number}: {problem}")
        right = len(golden.samples) - len(wrong)
        if right < golden.min_pass * len(golden.samples) - 1e-9:
            raise DeviceError(
                f"module {spec.name!r} answered {right} of {len(golden.samples)} golden samples "
                f"rightly, {golden.min_pass:.0%} are needed; first wrong: {wrong[0]}",
                code=Code.GOLDEN_MISMATCH,
                hint="the model does not do what it promises: train it again, or mend its samples",
            )

    async def _ask(self, url: str, sample: GoldenSample) -> str | None:
        body = msgspec.json.encode(sample.input)
        try:
            status, raw = await self._prober.request(url, body, timeout_seconds=_ANSWER_SECONDS)
            answer = msgspec.json.decode(raw)
        except (FleetError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return str(error)
        if status != _OK:
            return f"status {status}"
        return mismatch(sample.expected, answer, sample.tolerance)
