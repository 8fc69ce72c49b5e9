"""Files of linear classifiers: what `dynaclr info` says of one."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.array_files import has_schema
from dynaclr.info.description import Describer, Description

__all__ = ["CLASSIFIER"]


def _describe(path: Path) -> Description:
    from viscy_utils.evaluation.linear_classifier_file import load_classifier

    pipeline, content = load_classifier(path)
    facts = {
        "task": content["task"],
        "classes": content["classes"],
        "features": int(pipeline.classifier.coef_.shape[1]),
        "settings": [f"{name}: {value}" for name, value in content["config"].items()],
        "origin": [f"{name}: {value}" for name, value in content["origin"].items()],
    }
    step = "dynaclr apply-linear-classifier -c apply.yml, with classifier_path and embeddings_path"
    return Description("a linear classifier", facts, (), (step,))


CLASSIFIER = Describer("a linear classifier", lambda path: has_schema(path, "viscy linear classifier"), _describe)
