"""How often the test of users and trainings errs, and what it finds: the tables of docs/statistics.md.

``python -m tests.benchmarks.calibration`` prints them as Markdown, in some minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from recsys.evaluation.simulation import (
    RULES,
    World,
    claims_while_looking,
    default,
    false_claims,
    false_claims_of_users,
    power,
    two_tests,
)

METHODS, SEEDS, NOISE = (2, 5, 10), (1, 2, 3, 5), (0.0, 0.1, 0.5, 1.0, 2.0, 10.0)
BENCHMARKS = 20_000
BEAUTY = 1.8
"""Error over trainings on Amazon Beauty with one seed, as a multiple of that over users."""


def table(title: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Print a table as Markdown."""
    lines = [*rows]
    print(f"\n{title}\n")
    print("| " + " | ".join(lines[0]) + " |")
    print("|" + "---|" * len(lines[0]))
    for line in lines:
        print("| " + " | ".join(str(cell) for cell in line.values()) + " |", flush=True)


def percent(share: float) -> str:
    """Return a share of .0123 as ``1.2``."""
    return f"{100 * share:.1f}"


def errors() -> None:
    """Print false claims of the default rule, and of the one of earlier versions."""
    for name, rule in (("default", default), ("earlier: two tests", two_tests)):
        table(
            f"False claims in % of benchmarks, {name}",
            (
                {"methods": methods, "seeds": seeds}
                | {
                    f"noise {n:g}": percent(false_claims(World(methods, seeds, n), rule, BENCHMARKS))
                    for n in NOISE
                }
                for methods in METHODS
                for seeds in SEEDS
            ),
        )


def unequal() -> None:
    """Print what rules do where some methods vary more over trainings than the others."""

    def worst(rule: str, factor: float) -> str:
        """Return the largest share over numbers of methods and seeds, and over which methods vary more."""
        worlds = (
            World(methods, seeds, noise, factors=(factor,) * many)
            for methods in METHODS
            for seeds in SEEDS[1:]
            for noise in (1.0, 10.0)
            for many in {1, min(2, methods - 1), methods // 2}
        )
        return percent(max(false_claims(world, RULES[rule], BENCHMARKS // 2) for world in worlds))

    def found(rule: str, seeds: int) -> str:
        return f"{power(World(5, seeds, BEAUTY, lead=5), RULES[rule], BENCHMARKS):.2f}"

    table(
        "Pooling: the worst cell's false claims in %, and power with five methods, noise 1.8, lead 5",
        (
            {"rule": rule}
            | {f"factor {factor}": worst(rule, factor) for factor in (1, 4, 10)}
            | {f"power, {seeds} seeds": found(rule, seeds) for seeds in (2, 3, 5)}
            for rule in RULES
        ),
    )


def powers() -> None:
    """Print power curves of the default rule and of that of earlier versions."""
    for methods in (2, 5):
        table(
            f"Power, {methods} methods, noise 1.8",
            (
                {"rule": name, "seeds": seeds}
                | {
                    f"lead {lead}": f"{power(World(methods, seeds, BEAUTY, lead=lead), rule, BENCHMARKS):.2f}"
                    for lead in (1, 2, 3, 4, 5, 7, 10)
                }
                for seeds in (2, 3, 5, 8)
                for name, rule in (("default", default), ("earlier", two_tests))
            ),
        )


def looking() -> None:
    """Print what looking after every seed does."""
    table(
        "Looking after every seed from 2 to 8, noise 1.8: claims in %, mean number of seeds",
        (
            {"methods": methods, "lead": lead}
            | {
                f"{name}: {what}": f"{value:.1f}"
                for name, corrected in (("level / 7", True), ("level", False))
                for what, value in zip(
                    ("claims", "seeds"), _looked(World(methods, 8, BEAUTY, lead=lead), corrected), strict=True
                )
            }
            for methods in (2, 5)
            for lead in (0, 3, 5, 10)
        ),
    )


def _looked(world: World, corrected: bool) -> tuple[float, float]:
    claims, seeds = claims_while_looking(world, BENCHMARKS, corrected=corrected)
    return 100 * claims, seeds


def whole_way() -> None:
    """Print some cells by the scores of 1,000 users, beside the same by statistics."""
    table(
        "By users' sparse scores, 1,000 benchmarks: false claims in %",
        (
            {"methods": world.methods, "seeds": world.seeds, "noise": f"{world.noise:g}"}
            | {
                "users": percent(false_claims_of_users(world, 1000, 1000)),
                "statistics": percent(false_claims(world, default, BENCHMARKS)),
            }
            for world in (
                World(methods, seeds, noise, residual=0.72)  # as it is with scores of sparse hits
                for methods, seeds, noise in (
                    (2, 3, 0.5),
                    (2, 5, 2.0),
                    (2, 5, 10.0),
                    (5, 3, 2.0),
                    (5, 5, 2.0),
                )
            )
        ),
    )


def main() -> None:
    """Print all tables."""
    for print_tables in (errors, unequal, powers, looking, whole_way):
        print_tables()


if __name__ == "__main__":
    main()
