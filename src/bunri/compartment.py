"""Runs in: every process. `Compartment`: a class whose instances each run in a confined process of their own."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, cast

from bunri.errors import UsageError
from bunri.policy import Policy
from bunri.process import here
from bunri.wire import check_annotated
from bunri.wire.registry import Family, register_base

if TYPE_CHECKING:
    from bunri.process.process import Process

P = ParamSpec("P")
C = TypeVar("C", bound="Compartment")


class Reuse(Enum):
    """What becomes of a pool's worker after a call."""

    NEVER = "never"
    """It is replaced: a worker belongs to one principal (THREATS 3)."""
    DANGEROUS_ACROSS_PRINCIPALS = "dangerous across principals"
    """It serves the next call. Whoever owned it in an earlier call reads and forges all later ones."""


RESERVED = frozenset({"start", "start_under", "pool", "close", "process", "warm_up", "policy", "preload", "reuse"})

_defined: dict[str, dict[str, type[Compartment]]] = {}  # module -> qualified name -> class


class Compartment:
    """Subclass it: `__init__` and the public methods run in the worker, confined by `policy`.

    Every parameter and result of a public method is annotated; the annotations are the contract that both sides check.

        class Thumbnailer(bunri.Compartment):
            policy = bunri.Policy(memory="512M", cpu="5s")

            def thumbnail(self, image: bytes, edge: int = 128) -> bytes: ...

        with Thumbnailer.start() as worker:
            png = worker.thumbnail(photo)
    """

    policy: ClassVar[Policy] = Policy()
    preload: ClassVar[tuple[str, ...]] = ()
    """Names of modules to import in the zygote, before confinement."""
    reuse: ClassVar[Reuse] = Reuse.NEVER

    def __init_subclass__(cls, *, _bunri_stub: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _bunri_stub:
            return
        _check_reserved(cls)
        check_annotated(cls, Compartment)
        _defined.setdefault(cls.__module__, {})[cls.__qualname__] = cls

    @classmethod
    def warm_up(cls) -> None:
        """Runs once in the zygote, after the imports and before any worker. Fill caches, build tables; leave no
        thread and no descriptor."""

    @classmethod  # pyright: ignore[reportArgumentType]
    def start(cls: Callable[P, C], *args: P.args, **kwargs: P.kwargs) -> C:
        """Start a worker and return its stub at once; the arguments are those of `__init__`.

        Raises what planning finds: UsageError, HostError. `with`, `async with`, `.process` or the first call waits
        until the worker is confined and has been looked at from outside, and raises what that found.
        """
        here.refuse_to_start()
        from bunri.process.start import start

        return start(cls, None, args, kwargs)  # type: ignore[arg-type]

    @classmethod  # pyright: ignore[reportArgumentType]
    def start_under(cls: Callable[P, C], policy: Policy, /, *args: P.args, **kwargs: P.kwargs) -> C:
        """As `start`, under a policy that fills the holes (AT_START) of the class's and otherwise equals it or is
        narrower."""
        here.refuse_to_start()
        from bunri.process.start import start

        return start(cls, policy, args, kwargs)  # type: ignore[arg-type]

    @classmethod  # pyright: ignore[reportArgumentType]
    def pool(cls: Callable[P, C], size: int, /, *args: P.args, **kwargs: P.kwargs) -> C:
        """A stub behind which `size` workers stand ready; each call takes one. The arguments are those of
        `__init__`."""
        here.refuse_to_start()
        from bunri.process.start import start_pool

        return start_pool(cls, size, args, kwargs)  # type: ignore[arg-type]

    @property
    def process(self) -> Process:
        """The worker's process, once it is confined. UsageError on a pool."""
        return _lifecycle(self).process()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Kill the worker (or the pool) without farewell, and reap it. Calls in flight fail."""
        _lifecycle(self).close()

    def __enter__(self) -> Self:
        _lifecycle(self).wait_started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await _lifecycle(self).wait_started_async()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _lifecycle(self).close_async()


register_base(
    Compartment, Family.COMPARTMENT, reserved=RESERVED, settable=frozenset({"warm_up", "policy", "preload", "reuse"})
)


def defined_in(module: str) -> dict[str, type[Compartment]]:
    """The compartments that `module` defines, by qualified name."""
    return dict(_defined.get(module, {}))


def _lifecycle(stub: Compartment) -> Any:
    target = vars(stub).get("_bunri_target")
    if target is None:
        where = "inside its own worker" if here.kind() is here.Kind.WORKER else "in this process"
        raise UsageError(
            f"{type(stub).__qualname__}(...) made an ordinary object {where}. "
            f"Write {type(stub).__qualname__}.start(...) to run it in a process of its own"
        )
    return target


def _check_reserved(cls: type[Compartment]) -> None:
    for name in ("start", "start_under", "pool", "close", "process"):
        if name in vars(cls):
            raise UsageError(f"{cls.__qualname__}.{name} would hide bunri's own {name}. Give the method another name")
    if not isinstance(cast(object, cls.policy), Policy):
        raise UsageError(f"{cls.__qualname__}.policy is {cls.policy!r}. Write policy = bunri.Policy(...)")
    if isinstance(cast(object, cls.preload), str):
        raise UsageError(f'{cls.__qualname__}.preload is one string. Write preload = ("{cls.preload}",)')
    if not isinstance(cast(object, cls.reuse), Reuse):
        raise UsageError(f"{cls.__qualname__}.reuse is {cls.reuse!r}. Write bunri.Reuse.NEVER")
