"""The `dynaclr` command: names of its own subcommands and where they live; nothing is imported before it is used."""

from __future__ import annotations

from viscy_utils.cli import Subcommand
from viscy_utils.cli.application import application, run_application

__all__ = ["cli", "main"]

OWN_COMMANDS = {
    "init": Subcommand("write the two YAML files for your own stores and tracks", runs="dynaclr.commands.init:init"),
    "info": Subcommand("say what a file, folder or store is, and what to do next", runs="dynaclr.commands.info:info"),
    "demo": Subcommand(
        "simulate experiments, train, predict and report, in a few minutes", runs="dynaclr.commands.demo:demo"
    ),
    "build-index": Subcommand(
        "save the table of cells of an experiments YAML", runs="dynaclr.commands.build_index:build_index"
    ),
    "cache-patches": Subcommand(
        "copy the patches of all cells once, for training to read", runs="dynaclr.commands.cache_patches:cache_patches"
    ),
    "compute-features": Subcommand(
        "compute features of all cells that need no network",
        runs="dynaclr.commands.compute_features:compute_features",
    ),
    "import-images": Subcommand(
        "bring the files of microscopes into a plate", runs="dynaclr.commands.import_images:import_images"
    ),
    "import-tracks": Subcommand(
        "bring the tracks of other programs beside a store", runs="dynaclr.commands.import_tracks:import_tracks"
    ),
    "inspect-batches": Subcommand(
        "show what a config puts into its batches, before training",
        runs="dynaclr.commands.inspect_batches:inspect_batches",
    ),
    "compare-losses": Subcommand(
        "train variants of a config alike and judge them", runs="dynaclr.commands.compare_losses:compare_losses"
    ),
    "evaluate": Subcommand(
        "probe, mixing and smoothness of written embeddings", runs="dynaclr.commands.evaluate:evaluate"
    ),
    "correct": Subcommand(
        "take an experiment's share out of embeddings, by control cells", runs="dynaclr.commands.correct:correct"
    ),
    "train-linear-classifier": Subcommand(
        "train a classifier of an annotation on embeddings",
        runs="dynaclr.commands.train_linear_classifier:train_linear_classifier",
    ),
    "cross-validate": Subcommand(
        "judge a classifier on experiments, FOVs or lineages in turns",
        runs="dynaclr.commands.cross_validate:cross_validate",
    ),
    "apply-linear-classifier": Subcommand(
        "add the predictions of a classifier to embeddings",
        runs="dynaclr.commands.apply_linear_classifier:apply_linear_classifier",
    ),
    "append-annotations": Subcommand(
        "add columns of annotation tables to embeddings", runs="dynaclr.commands.embedding_stores:append_annotations"
    ),
    "append-predictions": Subcommand(
        "add the predictions of several classifiers to embeddings",
        runs="dynaclr.commands.embedding_stores:append_predictions",
    ),
    "reduce-dimensionality": Subcommand(
        "add PCA, UMAP, PHATE or PaCMAP to embeddings", runs="dynaclr.commands.embedding_stores:reduce_dimensionality"
    ),
    "plot-embeddings": Subcommand(
        "draw reductions of embeddings, coloured by columns", runs="dynaclr.commands.embedding_stores:plot_embeddings"
    ),
    "export-atlas": Subcommand(
        "write embeddings with thumbnails for explorers of embeddings",
        runs="dynaclr.commands.export_atlas:export_atlas",
    ),
    "split-embeddings": Subcommand(
        "write the embeddings of each experiment to a store of its own",
        runs="dynaclr.commands.embedding_stores:split_embeddings",
    ),
    "evaluate-smoothness": Subcommand(
        "smoothness of tracks in the embeddings of several models",
        runs="dynaclr.commands.embedding_stores:evaluate_smoothness",
    ),
    "compare-models": Subcommand(
        "lay results of evaluate-smoothness side by side", runs="dynaclr.commands.embedding_stores:compare_models"
    ),
}

DATA_CHECKS = {"dynaclr.MultiExperimentDataModule": "dynaclr.early_checks:refuse_missing_experiments"}

cli = application(
    "dynaclr", "Contrastive learning of cell dynamics across time-lapse experiments.", OWN_COMMANDS, DATA_CHECKS
)


def main() -> None:
    """Run the console script ``dynaclr``."""
    run_application(cli)
