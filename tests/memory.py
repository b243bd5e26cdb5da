"""What another process has in its memory, for tests of who could read it."""

from __future__ import annotations

from pathlib import Path


def memory(pid: int) -> bytes:
    """Whatever the process can write to: its heap, its stacks, what libraries keep.

    Raises OSError if this process may not look.
    """
    kept = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *rest = line.split()
            if rights.startswith("rw") and "[v" not in rest[-1]:
                start, end = (int(part, 16) for part in span.split("-"))
                file.seek(start)
                kept.append(file.read(end - start))
    return b"".join(kept)
