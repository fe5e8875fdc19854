"""Shapley values of any game: what each player adds, averaged over the orders in which players come in.

Own code, for SHAP's library takes four seconds to import, which a card for one patient does not have, and seeds
numpy for everyone; the tests hold the two against each other.
"""

from __future__ import annotations

from math import factorial

import numpy as np

FEW = 8  # players up to which every coalition is asked in any case


def coalitions(players: int) -> np.ndarray:
    """Every coalition, shape (2 ** players, players), bool; the first is empty, the last has all."""
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(bool)


def weights(players: int) -> np.ndarray:
    """What turns the values of `coalitions` into Shapley values, shape (players, 2 ** players).

    Shapley 1953 (doi:10.1515/9781400881970-018).
    """
    inside = coalitions(players)
    size = inside.sum(axis=1)
    ways = np.array([factorial(k) * factorial(max(players - k - 1, 0)) for k in range(players + 1)]) / factorial(
        players
    )
    return np.where(inside, ways[size - 1][:, None], -ways[size][:, None]).T


def shapley(game, players: int, *, drawn: int, seed: int, few: int = FEW) -> np.ndarray:
    """Shapley values, exact where that is no dearer, else over orders that are drawn, each with its reverse.

    Either way they sum to the value of all players less that of none. Reversed orders: Mitchell 2022, JMLR 23:43.

    Parameters
    ----------
    game : callable
        From coalitions, bool, shape (k, players), to their values, shape (k, …).
    players : int
    drawn : int
        Orders; each is followed backwards too.
    seed : int
    few : int

    Returns
    -------
    ndarray, shape (players, …)
    """
    if 2**players <= max(2**few, 2 + 2 * drawn * (players - 1)):  # no dearer than the orders
        return np.tensordot(weights(players), np.asarray(game(coalitions(players)), float), axes=1)
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(players) for _ in range(drawn)])
    place = np.argsort(np.concatenate([orders, orders[:, ::-1]]), axis=1)
    inside = place[:, None, :] < np.arange(players + 1)[:, None]  # order, how many have come, player
    packed = np.packbits(inside.reshape(-1, players), axis=1)  # rows of bits are slow to sort
    asked, back = np.unique(packed, axis=0, return_inverse=True)
    asked = np.unpackbits(asked, axis=1, count=players).astype(bool)
    values = np.asarray(game(asked), float)[back.ravel()]
    added = np.diff(values.reshape(*inside.shape[:2], *values.shape[1:]), axis=1)
    return np.stack([added[np.arange(len(place)), place[:, player]].mean(axis=0) for player in range(players)])
