"""Formats numbers, and writes the sentences of a report."""

from markupsafe import Markup

from amct_tensorflow.io.table import abbreviated, plural
from amct_tensorflow.quantize.quantized.model_files import FileContent
from amct_tensorflow.results.report.document import Interval, Outcome, Ranking, Report
from amct_tensorflow.search.statistics import LossInterval

UNKNOWN = "\N{EN DASH}"
_CONTENT = {
    "int8_weights": "weights in int8",
    "float_weights": "weights in float",
    "other_constants": "scales, biases and other constants",
    "names": "names of nodes",
    "rest": "ops, attributes and functions",
}


def number(value: float | str | None, digits: int = 4) -> str:
    """Returns a number with a few digits, and anything else as it is."""
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return value
    # Metrics keep what tells them apart; the noise of the last digits goes.
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def count(value: int | None) -> str:
    """Returns a large number with three digits and a letter."""
    return UNKNOWN if value is None else abbreviated(value)


def percent(share: float | None, digits: int = 1) -> str:
    """Returns a share in percent."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def size(value: int | None) -> str:
    """Returns a number of bytes."""
    if value is None:
        return UNKNOWN
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def content_sentence(content: FileContent) -> str:
    """Returns what the bytes of a file are, as a sentence, the most first."""
    parts = {name: getattr(content, name) for name in _CONTENT}
    total = max(sum(parts.values()), 1)
    ranked = sorted((name for name in parts if parts[name]), key=lambda name: -parts[name])
    listed = [f"{100 * parts[name] / total:.0f} % {_CONTENT[name]}" for name in ranked]
    return f"It consists of {', '.join(listed)}."


def verdict(outcome: Outcome) -> str:
    """Returns in one line whether the target is met, and by how much."""
    loss = outcome.loss
    if loss is None:
        said = "the loss is not finite"
    elif loss > 0:
        said = f"lost {number(loss)}"
    else:
        said = "nothing lost" if loss == 0 else f"gained {number(-loss)}"
    limit = "" if outcome.target is None else f" of at most {number(outcome.target)}"
    if limit and (loss is None or loss <= 0):
        limit = f"; at most {number(outcome.target)} may be lost"
    return f"{'Target met' if outcome.target_met else 'Target missed'}: {said}{limit}"


def bounds(interval: Interval) -> str:
    """Returns the confidence interval of the loss, in words."""
    ends = f"{number(interval.lower, 3)} to {number(interval.upper, 3)}"
    return f"{100 * interval.confidence:.0f} % confidence: {ends}, from {plural(interval.images, 'image')}"


def breakable(name: str) -> Markup:
    """Returns the escaped name of a layer, with line breaks allowed behind its slashes."""
    return Markup("/<wbr>").join(name.split("/"))


def remarks(report: Report) -> list[str]:
    """Returns remarks on the verdict."""
    outcome, found = report.outcome, []
    if outcome.interrupted:
        found.append("The search was interrupted; this is the best model until then.")
    if not outcome.target_met:
        found.append("No quantized model that was tried meets the target; the best one was saved all the same.")
    if outcome.target is None:
        found.append("The target is not known as a number: metric_eval decides about more than a number.")
    if outcome.interval is None:
        found.append(
            "There is no confidence interval: the evaluator does not tell results per image (image_results), or they "
            "do not add up to the loss."
        )
    elif outcome.target is not None:
        found.extend(_certainty(outcome, outcome.interval, outcome.target))
    return found


def _certainty(outcome: Outcome, interval: Interval, target: float) -> list[str]:
    measured = LossInterval(interval.lower, interval.upper, interval.images)
    if outcome.target_met and interval.upper <= target:
        return ["The whole confidence interval lies within the target."]
    few = ""
    if measured.half_width > target > 0:
        few = f" About {measured.images_to_resolve(target)} images would tell the loss to within the target."
    if outcome.target_met:
        return [f"The confidence interval reaches beyond the target: on other images the loss may be larger.{few}"]
    return [f"The confidence interval reaches below the target.{few}"] if interval.lower <= target else []


def damage_meaning(ranking: Ranking) -> str:
    """Explains how the damage of a layer was measured."""
    if not ranking.of_outputs and ranking.sensitivity == "OutputDivergence":
        ranking = Ranking("CosineSimilarity", False)
    if ranking.sensitivity == "OutputDivergence":
        return (
            "Damage: 1 - exp(-d), where d is how far the outputs of the model move when this layer alone is quantized "
            "(of probabilities, the KL divergence in nats)."
        )
    if ranking.sensitivity == "CosineSimilarity":
        return (
            "Damage: half of 1 minus the cosine similarity of the layer's own output, float and quantized, when it "
            "reads what the float layer reads."
        )
    return f"Damage: 1 minus the similarity that {ranking.sensitivity} gives the layer."
