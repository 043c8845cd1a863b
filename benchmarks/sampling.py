"""How many noisy samples does a map need, and does it know how far off it still is?

The bundled networks on bundled scenes, a random ResNet-50, the top class, ``exp_logit``,
Grad-CAM++ with exact derivatives. From one pool of antithetic samples for each case comes a
reference, the mean of all of them, and maps of n samples, as many as are disjoint: independent ones
from the first of every pair, antithetic ones from pairs; orthogonal ones from a pool of their own.
The error of a map is ``|map - reference| / |reference|``, root mean square over maps, and the
samples it takes to get below 5 % are read off between two n, on logarithmic axes.

Then what tempered weights ``e^{t u}`` do to the effective samples, to the map (its distance from
the exact reference) and to its steadiness (its deviation from map to map, n = 25); how many
effective samples an exponentially tilted proposal would have, ``x + sigma (eps + s)`` with
``s = sigma E grad u`` estimated by gradients at noisy inputs, or at the clean one, and the density
ratio in the weights; and how often, over keys, the reference lies within two stated standard errors
of the library's map, pixel by pixel.

    python -m benchmarks.sampling
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import jaxcam
from benchmarks.environment import write
from jaxcam import bundled, maps, methods, zoo
from jaxcam.arrays.inputs import first
from jaxcam.contracts import Smoothing
from jaxcam.derivatives.auto import engine_named
from jaxcam.pipeline import noise, points, samples
from jaxcam.pipeline import program as explain
from jaxcam.pipeline.job import Begun, Clean, Job, Numbers, Settings
from jaxcam.pipeline.network import Network
from jaxcam.targets import as_target
from jaxcam.types import Derivatives, shared

WIDTH = 110  # of the printed tables
AT_ONCE = 16  # inputs in one call
TEMPERS = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = {"exact": 1.0, "uniform": 0.0}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TARGETS = (0.05, 0.02, 0.01)
STEADY = 25  # samples, the library's default
PILOTS = (0, 8, 32)

Record = dict[str, Any]


class Case(NamedTuple):
    """One input of one network at one layer, how noisy, and how many samples are affordable.

    covered: scheme, weights, and the samples or (below one) the tolerance that a user asks for.
    """

    name: str
    split: jaxcam.Split
    x: NDArray
    noise_level: float
    reference: int
    covered: tuple[tuple[str, str, float], ...] = ()


class Pool(NamedTuple):
    """Samples of one case: ``u: [n]`` less its clean value, derivatives ``[n, 3, *spatial, k]``."""

    u: NDArray
    derivatives: NDArray


class Question(NamedTuple):
    """A case, ready to be computed."""

    job: Job
    settings: Settings
    clean: Clean
    to_map: Callable[[NDArray], NDArray]


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description="Samples that a map needs.")
    parser.add_argument("--reference", type=int, default=16_384)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--cases", default="", help="those whose names contain this")
    parser.add_argument("--out", default="sampling")
    options = parser.parse_args()
    warnings.simplefilter("ignore", jaxcam.JaxcamWarning)
    result: Record = {
        "command": " ".join(["python -m benchmarks.sampling", *sys.argv[1:]]),
        "keys": options.keys,
        "cases": {},
    }
    for case in cases(options.reference):
        if options.cases in case.name:
            result["cases"][case.name] = measure(case, options.keys)
            show(case.name, result["cases"][case.name])
            # After each case: the last ones take long.
            print(f"written: {write(options.out, result)}", flush=True)


def cases(reference: int) -> Sequence[Case]:
    """All cases. Exact derivatives of GELU's block3 are dear: half the reference there."""
    every = tuple((s, w, 25) for s in noise.SCHEMES for w in WEIGHTS)
    more = tuple((s, "exact", 64) for s in noise.SCHEMES)
    few = (("independent", "exact", 25), ("independent", "exact", 64), ("antithetic", "exact", 64))
    rows: tuple[tuple[Any, str, int, float, int, Any], ...] = (
        ("relu", "block3", 0, 0.15, reference, (*every, *more, ("antithetic", "exact", 0.01))),
        ("gelu", "block4", 0, 0.15, reference, (*every, *more, ("antithetic", "exact", 0.02))),
        ("gelu", "block3", 0, 0.15, reference // 2, few[:1]),
        ("gelu", "block4", 0, 0.5, reference, few[1:]),
        ("gelu", "block4", 5, 0.15, reference, ()),
        ("relu", "block3", 5, 0.15, reference, ()),
        ("relu", "block3", 0, 0.3, reference, few[1:]),
    )
    found = []
    for kind, layer, scene, level, count, covered in rows:
        model, variables = bundled.load(kind)
        split = jaxcam.split(model, layer, variables=variables)
        name = f"{kind} {layer}, scene {scene}, noise {level}"
        found.append(Case(name, split, bundled.scene(scene).image, level, count, covered))
    split = jaxcam.split(zoo.build("resnet50", rngs=nnx.Rngs(0)), "layer3.5")
    x = np.asarray(jax.random.normal(jax.random.key(1), (64, 64, 3)))
    found.insert(2, Case("ResNet-50 layer3.5, 64x64, noise 0.15", split, x, 0.15, reference))
    return found


def measure(case: Case, keys: int) -> Record:
    """Answer all questions about one case."""
    question = asked(case)
    pool = drawn(question, "antithetic", case.reference)
    apart = drawn(question, "orthogonal", case.reference // 4)
    references = {t: question.to_map(mean(pool, t)[None])[0] for t in TEMPERS}
    first = Pool(pool.u[::2], pool.derivatives[::2])
    pools = {"independent": first, "antithetic": pool, "orthogonal": apart}
    return {
        "engine": question.clean.report.engine,
        "reference": case.reference,
        "deviation_of_u": float(pool.u.std()),
        "errors": {
            how: {
                scheme: errors(question, one, references[t], t) for scheme, one in pools.items()
            }
            for how, t in WEIGHTS.items()
        },
        "tempered": {str(t): tempered(question, first, references, t) for t in TEMPERS},
        "effective_share": {"as they are": effective(pool.u), **tilted(question)},
        "coverage": {
            f"{scheme}, {how}, {f'to {100 * n:g} %' if n < 1 else f'n = {n}'}": coverage(
                case, references[WEIGHTS[how]], keys, scheme=scheme, sample_weights=how,
                **({"tolerance": n} if n < 1 else {"num_samples": n}),
            )
            for scheme, how, n in case.covered
        },
    }  # fmt: skip


def asked(case: Case) -> Question:
    """Run the clean pass of one case."""
    method = jaxcam.smooth(methods.grad_cam_pp())
    smoothing = method.points
    assert isinstance(smoothing, Smoothing)
    keys = noise.keys_of(jax.random.key(0), 1)
    numbers = Numbers(keys, jnp.float32(case.noise_level), jnp.float32(1))
    job = Job(shared(case.split), jnp.asarray(case.x)[None], as_target(None), numbers)
    bare = smoothing._replace(num_points=2**30, noise_level=None, temper=None)
    settings = Settings(method._replace(points=bare), "auto", None)
    clean = jax.jit(explain.begin, static_argnames="settings")(job, settings=settings)
    a, scale = clean.a[0], clean.scale[0]

    def one(means: jax.Array) -> jax.Array:
        weights, _ = method.weigh(Derivatives(*means), a, scale)
        return jax.nn.relu(maps.combine(weights, a))

    every = jax.jit(lambda means: jax.lax.map(one, means))
    return Question(job, settings, clean, lambda means: np.asarray(every(means), np.float64))


def drawn(question: Question, scheme: str, count: int) -> Pool:
    """Draw a pool of samples, in their order."""
    job, settings, clean, _ = question
    smoothing = settings.points
    assert isinstance(smoothing, Smoothing)
    method = settings.gradient._replace(points=smoothing._replace(scheme=scheme))
    settings = settings._replace(method=method)
    single = engine_named(clean.report.engine).single

    @jax.jit
    def chunk(job: Job, clean: Clean, ids: jax.Array) -> Any:
        def one(n: jax.Array) -> tuple[jax.Array, jax.Array]:
            own = points.Own(noise.keys_of(jax.random.key(7), 1)[0], None, None)
            begun = Begun(job, settings, clean)
            noisy, a = points.visit(begun, job.x[0], own, n)
            known = samples.Known(first(clean.aim), clean.scale[0], clean.scores[0].argmax())
            found = samples.measure(begun, known, n, noisy, a)
            return found.log_weight, jnp.stack(found.derivatives)

        return jax.vmap(one)(ids) if single else jax.lax.map(one, ids)

    found = [chunk(job, clean, ids) for ids in pieces(jnp.arange(count))]
    u = np.concatenate([np.asarray(u, np.float64) for u, _ in found])
    clean_u = float(clean.scores[0, clean.aim.class_index[0]])
    return Pool(u - clean_u, np.concatenate([np.asarray(d) for _, d in found]))


def pieces(rows: jax.Array) -> list[jax.Array]:
    """Cut rows into pieces for one call each."""
    return [rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE)]


def mean(pool: Pool, t: float, ids: Any = slice(None)) -> NDArray:
    """Average the derivatives of some samples with weights ``e^{t u}``: ``[3, *spatial, k]``."""
    u = t * pool.u[ids]
    weights = np.exp(u - u.max())
    return np.tensordot((weights / weights.sum()).astype(np.float32), pool.derivatives[ids], 1)


def replicates(question: Question, pool: Pool, t: float, n: int) -> NDArray:
    """Make disjoint maps of ``n`` samples."""
    parts = range(len(pool.u) // n)
    means = np.stack([mean(pool, t, slice(part * n, (part + 1) * n)) for part in parts])
    return question.to_map(means)


def errors(question: Question, pool: Pool, reference: NDArray, t: float) -> Record:
    """Measure maps against the reference, for every n of which there are eight disjoint maps."""
    by_count = {}
    for n in COUNTS:
        if len(pool.u) >= 8 * n:
            off = replicates(question, pool, t, n) - reference
            by_count[n] = float(np.sqrt((off**2).sum(axis=(1, 2)).mean() / (reference**2).sum()))
    return {"error": by_count, "needed": {str(e): needed(by_count, e) for e in TARGETS}}


def needed(by_count: dict[int, float], target: float) -> float | None:
    """Read off at how many samples the error falls to the target; None beyond what was measured."""
    counts, found = list(by_count), list(by_count.values())
    if found[0] <= target:
        return float(counts[0])
    for i in range(1, len(counts)):
        if found[i] <= target:
            high, low = np.log(found[i - 1]), np.log(found[i])
            share = (high - np.log(target)) / (high - low)
            return float(counts[i - 1] * (counts[i] / counts[i - 1]) ** share)
    return None


def tempered(question: Question, pool: Pool, references: dict[float, NDArray], t: float) -> Record:
    """Say what weights ``e^{t u}`` do, at the library's default of 25 independent samples."""
    found = replicates(question, pool, t, STEADY)
    exact, scale = references[1.0], float((references[1.0] ** 2).sum())
    spread = ((found - found.mean(axis=0)) ** 2).sum(axis=(1, 2)).mean()
    off = ((found - exact) ** 2).sum(axis=(1, 2)).mean()
    return {
        "effective_share": effective(t * pool.u),
        "effective_of_25": float(
            np.median([
                STEADY * effective(t * pool.u[at : at + STEADY])
                for at in range(0, len(pool.u) - STEADY, STEADY)
            ])
        ),
        "distance_from_exact": float(np.linalg.norm(references[t] - exact) / np.sqrt(scale)),
        "deviation": float(np.sqrt(spread / (references[t] ** 2).sum())),
        "error_against_exact": float(np.sqrt(off / scale)),
    }  # fmt: skip


def effective(log_weights: NDArray) -> float:
    """Give ``(sum w)^2 / sum w^2`` as a share of n."""
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (weights**2).sum() / len(weights))


def tilted(question: Question, count: int = 1024) -> dict[str, float]:
    """Measure the effective share of a tilted proposal, ``eps = s + delta``.

    ``E_eps e^{u} B = E_delta e^{u - s delta - s^2 / 2} B`` with ``u, B`` at ``x + sigma (s +
    delta)``, for any ``s``; were ``u`` linear, ``s = sigma grad u`` would make all weights equal.
    """
    job, _, clean, _ = question
    sigma = noise.deviation(job.x[0], job.numbers.noise_level)

    def u(split: Job, eps: jax.Array) -> jax.Array:
        network = Network(split.shared.split(), split.target)
        x = split.x[0] + sigma * eps
        return network.log_score(network.features(x), x, first(clean.aim))

    heights = jax.jit(jax.vmap(u, in_axes=(None, 0)))
    slopes = jax.jit(jax.vmap(jax.grad(u, argnums=1), in_axes=(None, 0)))

    def of_all(function: Callable[[Job, jax.Array], jax.Array], eps: jax.Array) -> jax.Array:
        return jnp.concatenate([function(job, some) for some in pieces(eps)])

    delta = jax.random.normal(jax.random.key(11), (count, *job.x.shape[1:]))
    found = {}
    for pilots in PILOTS:
        half = jax.random.normal(jax.random.key(12), (pilots // 2, *job.x.shape[1:]))
        where = jnp.concatenate([half, -half]) if pilots else jnp.zeros_like(delta[:1])
        s = of_all(slopes, where).mean(0)
        log_weights = of_all(heights, s + delta) - (delta * s).sum(axis=(1, 2, 3))
        words = f"tilted by {pilots} noisy gradients" if pilots else "tilted by the clean gradient"
        found[words] = effective(np.asarray(log_weights, np.float64))
    return found


def coverage(case: Case, reference: NDArray, keys: int, **how: Any) -> Record:
    """Count how often the reference is within two stated standard errors of the library's map."""
    inside, relative, taken, count = [], [], [], 50
    for at in range(0, keys, count):
        some = jax.random.split(jax.random.key(100), keys)[at : at + count]
        x = np.repeat(case.x[None], len(some), axis=0)
        found = jaxcam.smooth_grad_cam_pp(
            case.split, x, key=some, noise_level=case.noise_level, **how
        )
        error = found.diagnostics.standard_error
        assert error is not None
        inside.append(np.abs(np.asarray(found.map) - reference) <= 2 * np.asarray(error))
        relative.append(found.diagnostics.relative_error)
        taken.append(found.diagnostics.num_samples)
    # Where the reference is zero, so is mostly the map, and its error: that is no test.
    covered = np.concatenate(inside)[:, reference > 0]
    return {
        "covered": float(covered.mean()),
        "of_keys_5_to_95": [float(q) for q in np.quantile(covered.mean(axis=1), (0.05, 0.95))],
        "relative_error": float(np.median(np.concatenate(relative))),
        "samples": float(np.mean(np.concatenate(taken))),
    }


def show(name: str, result: Record) -> None:
    """Print what was measured."""
    console = Console(width=WIDTH)
    table = Table(title=f"{name} ({result['engine']}): samples for a map error")
    for column in ("weights", "scheme", *(f"{100 * e:g} %" for e in TARGETS), "error at n = 64"):
        table.add_column(column)
    for how, by_scheme in result["errors"].items():
        for scheme, found in by_scheme.items():
            cells = (f"{n:.1f}" if n else "more" for n in found["needed"].values())  # 1: or less
            at = found["error"].get(64)
            table.add_row(how, scheme, *cells, f"{100 * at:.2f} %" if at else "")
    console.print(table)
    table = Table(title=f"{name}: weights e^(t u), 25 independent samples")
    columns = ("effective of 25", "distance from exact", "deviation", "error against exact")
    for column in ("t", *columns):
        table.add_column(column)
    for t, row in result["tempered"].items():
        _, effective, *shares = row.values()
        table.add_row(t, f"{effective:.1f}", *(f"{100 * share:.2f} %" for share in shares))
    console.print(table)
    shares = {words: round(share, 3) for words, share in result["effective_share"].items()}
    console.print(f"deviation of u: {result['deviation_of_u']:.3f}; effective share:", shares)
    for words, found in result["coverage"].items():
        low, high = found["of_keys_5_to_95"]
        console.print(
            f"within 2 standard errors, {words}: {100 * found['covered']:.1f} %",
            f"(of single keys {100 * low:.0f} to {100 * high:.0f} %)",
            f"relative error {100 * found['relative_error']:.2f} %, {found['samples']:.0f} samples",
        )


if __name__ == "__main__":
    main()
