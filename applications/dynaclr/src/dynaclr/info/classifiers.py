"""Files of linear classifiers: what `dynaclr info` says of one."""

from __future__ import annotations

from pathlib import Path

from dynaclr.info.array_files import has_schema
from dynaclr.info.description import Describer, Description
from viscy_utils.reports.numbers import number

__all__ = ["CLASSIFIER"]


def _describe(path: Path) -> Description:
    from viscy_utils.evaluation.linear_classifier_file import load_classifier

    pipeline, content = load_classifier(path)
    origin = content["origin"]
    facts = {
        "task": content["task"],
        "classes": content["classes"],
        "features": int(pipeline.classifier.coef_.shape[1]),
        "settings": [f"{name}: {value}" for name, value in content["config"].items()],
        "trained on": [
            f"{own.get('embeddings')}: SHA-256 {own.get('embeddings_sha256')}" for own in origin.get("data", [])
        ],
        "metrics": [f"{name}: {number(value)}" for name, value in origin.get("metrics", {}).items()],
        "versions": [f"{name} {version}" for name, version in origin.get("versions", {}).items()],
    }
    step = "dynaclr apply-linear-classifier -c apply.yml, with classifier_path and embeddings_path"
    return Description("a linear classifier", facts, (), (step,))


CLASSIFIER = Describer("a linear classifier", lambda path: has_schema(path, "viscy linear classifier"), _describe)
