"""Every random draw comes from a seed that is derived from what it is for."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Derive an independent seed from a list of names and numbers.

    Args:
        parts: what the draws are for, such as `(config.seed, "order", epoch)`.

    Returns:
        An integer in [0, 2**63), the same on every machine and Python version.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
