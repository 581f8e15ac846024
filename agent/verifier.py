"""Proves a module before it counts: its ready probe, then its golden samples."""

from __future__ import annotations

import msgspec

from agent.core.plan import Instance, InstanceState, ModuleSpec
from agent.core.ports import Clock, Prober, Runtime
from protocol.errors import Code, DeviceError, FleetError
from protocol.golden import mismatch
from protocol.manifest import GoldenSample, GoldenSamples

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 10.0
_READY_SECONDS = 60.0
_OK = 200
_LOG_LINES = 20
_SAID = 300


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
        if spec.golden is not None and endpoint is not None:
            await self._golden(spec, endpoint, spec.golden)

    async def _ready(self, spec: ModuleSpec) -> str | None:
        """Return where the module answers; None only where nothing has to be asked."""
        probe = spec.ready_probe
        seconds = probe.timeout_seconds if probe else _READY_SECONDS
        deadline = self._clock.monotonic() + seconds
        while True:
            instance = await self._instance(spec)
            if instance is not None and await self._is_ready(spec, instance):
                return instance.endpoint
            if self._clock.monotonic() >= deadline:
                raise DeviceError(
                    f"module {spec.name!r} was not ready after {seconds:g} s",
                    code=Code.PROBE_FAILED,
                    hint=f"read its log: `rimward-agent logs {spec.name}`",
                )
            await self._clock.sleep(_POLL_SECONDS)

    async def _instance(self, spec: ModuleSpec) -> Instance | None:
        observed = await self._runtime.observe()
        for instance in observed.instances:
            if instance.id == spec.instance_id:
                if instance.state is InstanceState.EXITED:
                    raise await self._ended(spec, instance.exit_code)
                return instance
        return None

    async def _is_ready(self, spec: ModuleSpec, instance: Instance) -> bool:
        probe, golden, endpoint = spec.ready_probe, spec.golden, instance.endpoint
        if probe is None and golden is None:
            return True  # nothing was promised: the running process is enough
        if endpoint is None:
            return False
        if probe is not None:
            # An endpoint that resolves is all that is known of an open port.
            return probe.kind == "tcp" or await self._status(endpoint, probe.path) == _OK
        # Golden samples without a probe: whatever the server answers, it is there.
        return golden is None or await self._status(endpoint, golden.path) is not None

    async def _ended(self, spec: ModuleSpec, exit_code: int | None) -> DeviceError:
        said = _last_words(await self._runtime.logs(spec.instance_id, tail=_LOG_LINES))
        return DeviceError(
            f"module {spec.name!r} ended with code {exit_code}" + (f": {said}" if said else ""),
            code=Code.MODULE_START_FAILED,
            hint=f"read its log: `rimward-agent logs {spec.name}`",
        )

    async def _status(self, endpoint: str, path: str) -> int | None:
        try:
            status, _ = await self._prober.request(
                _url(endpoint, path), None, timeout_seconds=_ANSWER_SECONDS
            )
        except FleetError:
            return None
        return status

    async def _golden(self, spec: ModuleSpec, endpoint: str, golden: GoldenSamples) -> None:
        url, wrong, right = _url(endpoint, golden.path), list[str](), 0
        needed = golden.min_pass * len(golden.samples) - 1e-9
        for number, sample in enumerate(golden.samples, start=1):
            silent = False
            try:
                problem = await self._ask(url, sample)
            except FleetError as error:
                problem, silent = str(error), True
            if problem is None:
                right += 1
                continue
            wrong.append(f"sample {number}: {problem}")
            if silent and len(golden.samples) - len(wrong) < needed:
                break  # it cannot pass any more, and every silence takes its time
        if right < needed:
            raise DeviceError(
                f"module {spec.name!r} answered {right} of {len(golden.samples)} golden samples "
                f"rightly, {golden.min_pass:.0%} are needed; first wrong: {wrong[0]}",
                code=Code.GOLDEN_MISMATCH,
                hint="the model does not do what it promises: train it again, or mend its samples",
            )

    async def _ask(self, url: str, sample: GoldenSample) -> str | None:
        body = msgspec.json.encode(sample.input)
        status, raw = await self._prober.request(url, body, timeout_seconds=_ANSWER_SECONDS)
        if status != _OK:
            return f"status {status}: {_last_words(raw[:_SAID].decode(errors='replace'))}"
        try:
            answer = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"the answer is not JSON: {error}"
        return mismatch(sample.expected, answer, sample.tolerance)


def _last_words(text: str) -> str:
    """Return what matters of a module's output: its last error, or its last line."""
    lines = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error[")]
    return (errors or lines or [""])[-1][:_SAID]


def _url(endpoint: str, path: str) -> str:
    """Return an address of the module itself, whatever the manifest writes as a path."""
    return f"{endpoint}/{path.removeprefix('/')}"
