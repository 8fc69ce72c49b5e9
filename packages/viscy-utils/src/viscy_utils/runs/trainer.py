"""Lightning's trainer with the tools that the command line offers beside training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning.pytorch import LightningModule, Trainer

from viscy_data.stores import DEFAULT_STORAGE, StoragePolicy
from viscy_utils.statistics.pixel_samples import Sampling

if TYPE_CHECKING:
    from viscy_utils.statistics.metadata import Preprocessed

__all__ = ["VisCyTrainer"]


class VisCyTrainer(Trainer):
    """Trainer with ``preprocess``, ``export``, ``precompute`` and ``convert_to_anndata``.

    Takes the arguments of ``lightning.pytorch.Trainer``.

    Attributes
    ----------
    resolved_config : str
        The configuration that it was built with, as YAML; empty outside of the command line.
    """

    resolved_config: str = ""

    def preprocess(
        self,
        data_path: str | list[str],
        channel_names: list[str] | Literal[-1] = -1,
        num_workers: int = 1,
        block_size: int = 32,
        model: LightningModule | None = None,
        sampling: Sampling = "grid",
        dataset_fovs: list[str] | None = None,
        sidecar_path: Path | None = None,
        dask: str | None = None,
        storage: StoragePolicy = DEFAULT_STORAGE,
    ) -> Preprocessed:
        """Compute the normalisation statistics of a store.

        Parameters
        ----------
        data_path : str or list of str
            HCS OME-Zarr store, single image, pattern of paths or list, see :func:`viscy_data.read_fovs`.
        channel_names : list of str, default -1
            Channels to do; -1 takes all. Others keep the statistics they have.
        num_workers : int, default 1
            Threads, or processes of ``--dask local``, that read.
        block_size : int, default 32
            One pixel in ``block_size ** 2`` counts.
        model : LightningModule, optional
            Not used; the command line passes one.
        sampling : {"grid", "stratified"}, default "grid"
            ``stratified`` takes a random pixel of each block, for images with a periodic structure.
        dataset_fovs : list of str, optional
            FOVs or wells that make the dataset statistics, such as those used for training; all by default.
        sidecar_path : Path, optional
            Write to this JSON file instead of the store; by default only if the store cannot be written.
        dask : str, optional
            Scheduler of a running Dask cluster that reads, such as ``tcp://host:8786``, or ``local`` for processes of
            this machine; threads by default.
        storage : StoragePolicy, default ``DEFAULT_STORAGE``
            What to do about FOVs that cannot be read (``bad_fovs: leave_out`` goes on without them, counted and named),
            and about chunks that are not stored.

        Returns
        -------
        Preprocessed
            What was computed of what, and where it is.
        """
        from viscy_utils.statistics.metadata import generate_normalization_metadata

        return generate_normalization_metadata(
            data_path,
            num_workers,
            channel_names,
            block_size,
            sampling=sampling,
            dataset_fovs=dataset_fovs,
            sidecar_path=sidecar_path,
            dask=dask,
            storage=storage,
        )

    def export(
        self,
        model: LightningModule,
        export_path: Path,
        ckpt_path: Path | None = None,
        format: Literal["onnx", "ONNX"] = "onnx",
    ) -> None:
        """Write a model to ONNX.

        Parameters
        ----------
        model : LightningModule
            With ``example_input_array``; its ``forward`` is exported.
        export_path : Path
            The file to write.
        ckpt_path : Path, optional
            Checkpoint whose weights are used; those that the model has by default.
        format : {"onnx"}, default "onnx"
            The only one.
        """
        from viscy_utils.runs.onnx_export import export_onnx

        if format.lower() != "onnx":
            raise NotImplementedError(f"format must be onnx, got {format!r}")
        export_onnx(model, export_path, ckpt_path)

    def precompute(
        self,
        data_path: Path,
        output_path: Path,
        channel_names: list[str],
        subtrahends: list[Literal["mean"] | float],
        divisors: list[Literal["std"] | tuple[float, float]],
        image_array_key: str | None = None,
        include_wells: list[str] | None = None,
        exclude_fovs: list[str] | None = None,
        model: LightningModule | None = None,
    ) -> None:
        """Write normalised channels as a stack of numpy arrays.

        Parameters
        ----------
        data_path : Path
            HCS OME-Zarr store with FOVs of one shape.
        output_path : Path
            Folder to write.
        channel_names : list of str
            Channels to write.
        subtrahends : list
            Per channel ``mean`` or a percentile.
        divisors : list
            Per channel ``std`` or a pair of percentiles whose difference divides.
        image_array_key : str, optional
            Array of each FOV; by default the one that its metadata name first.
        include_wells, exclude_fovs : list of str, optional
            Wells to take (all by default), FOVs to leave out.
        model : LightningModule, optional
            Not used; the command line passes one.
        """
        from viscy_utils.statistics.precompute import precompute_array

        precompute_array(
            data_path, output_path, channel_names, subtrahends, divisors, image_array_key, include_wells, exclude_fovs
        )

    def convert_to_anndata(
        self,
        embeddings_path: Path,
        output_anndata_path: Path,
        overwrite: bool = False,
        model: LightningModule | None = None,
    ) -> None:
        """Convert embeddings of the old xarray layout to AnnData.

        Parameters
        ----------
        embeddings_path : Path
            xarray zarr store.
        output_anndata_path : Path
            AnnData zarr store to write.
        overwrite : bool, default False
            Replace an existing store.
        model : LightningModule, optional
            Not used; the command line passes one.
        """
        from viscy_utils.evaluation.annotation import convert

        convert(embeddings_path, output_anndata_path, overwrite=overwrite)
