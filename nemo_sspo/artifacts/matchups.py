"""Opponents of each iteration's policy, by the names that an evaluation gives them."""


def opponents(iteration: int) -> dict[str, int]:
    """Every earlier policy by name: ``base`` is policy 0, ``previous`` t - 1, ``iter_k`` one between them.

    In iteration 1 the base and the previous policy are one.
    """
    between = {f"iter_{policy}": policy for policy in range(1, iteration - 1)}
    return {"base": 0, **between, "previous": iteration - 1}
