"""A worker that may compute, and nothing else."""

import bunri


class Sums(bunri.Compartment):
    """Adds up. Also tries what it may not."""

    def add(self, numbers: list[int]) -> int:
        return sum(numbers)

    def read(self, path: str) -> str:
        with open(path) as file:
            return file.read()


def main() -> None:
    with Sums.start() as worker:
        print("sum:", worker.add([1, 2, 3]))
        try:
            print(worker.read("/etc/passwd"))
        except bunri.PeerError as refused:
            print("refused:", type(refused).__name__)


if __name__ == "__main__":
    main()
