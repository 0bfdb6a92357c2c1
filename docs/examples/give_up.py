"""Opens its input, then gives up its own rights before it looks at a byte of it."""

import sys

import bunri


def main(path: str) -> None:
    with open(path, "rb") as source:
        bunri.confine(bunri.Policy(), keep=(0, 1, 2, source.fileno()))
        print("lines:", sum(1 for _ in source))
    try:
        open(path, "rb").close()
    except OSError as refused:
        print("again:", refused.strerror)


if __name__ == "__main__":
    main(sys.argv[1])
