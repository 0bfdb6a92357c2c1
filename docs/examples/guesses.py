"""A worker talks to a stranger. What it may ask of its parent are objects that it was handed."""

from abc import abstractmethod

import bunri


class Drawer(bunri.Service):
    """What is behind the lock. Who holds it may look."""

    @abstractmethod
    def look(self) -> str: ...


class Lock(bunri.Service):
    """What a stranger may do."""

    @abstractmethod
    @bunri.limit(calls=3)
    def turn(self, key: bunri.Secret) -> Drawer | None: ...


class Stranger(bunri.Compartment):
    """Holds a lock, and nothing else."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock

    def guess(self, keys: list[str]) -> str:
        for key in keys:
            drawer = self.lock.turn(bunri.Secret(key))
            if drawer is not None:
                return drawer.look()
        return "never opened"


class DrawerHere(Drawer):
    def look(self) -> str:
        return "a letter"


class LockHere(Lock):
    """Lives in the parent, and decides from what the parent knows."""

    def turn(self, key: bunri.Secret) -> Drawer | None:
        return DrawerHere() if key == bunri.Secret("sesame") else None


def main() -> None:
    with Stranger.start(LockHere()) as stranger:
        print(stranger.guess(["rosebud", "sesame"]))
    with Stranger.start(LockHere()) as stranger:
        try:
            print(stranger.guess(["a", "b", "c", "d", "sesame"]))
        except bunri.WorkerDied:
            print("ended: more than three guesses")


if __name__ == "__main__":
    main()
