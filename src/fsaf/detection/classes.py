"""Names of classes in settings, turned into labels."""

from dataclasses import replace

from fsaf.config import PredictConfig
from fsaf.data.records import Classes
from fsaf.errors import RecipeError
from fsaf.text import nearest, short


def with_labels(settings: PredictConfig, classes: Classes) -> PredictConfig:
    """Return the settings with ``classes`` as labels 0..C-1, in order; None stays, and means all classes.

    Raises RecipeError for a name or number that is not one of ``classes``.
    """
    if settings.classes is None:
        return settings
    return replace(settings, classes=sorted({_label(given, classes) for given in settings.classes}))


def _label(given: str | int, classes: Classes) -> int:
    if isinstance(given, int):
        if not 0 <= given < len(classes):
            raise RecipeError(
                f"predict.classes: {given} is no class; they are numbered 0 to {len(classes) - 1}"
            )
        return given
    if given not in classes.names:
        some = ", ".join(map(repr, classes.names[:10])) + ", ..." * (len(classes) > 10)
        raise RecipeError(
            f"predict.classes: {short(given)} is no class of this detector{nearest(given, classes.names)} "
            f"(its classes: {some})"
        )
    return classes.names.index(given)
