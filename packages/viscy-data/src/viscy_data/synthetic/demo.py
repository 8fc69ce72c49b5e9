"""A ready set of three experiments that share their biology and little else."""

from __future__ import annotations

from viscy_data.synthetic.specs import ExperimentSpec, Nuisance

__all__ = ["demo_experiments"]


def demo_experiments(scale: float = 1.0) -> list[ExperimentSpec]:
    """Describe three experiments: reporters, intervals, channel orders and microscopes differ.

    Parameters
    ----------
    scale : float, default 1.0
        Multiplies the hours recorded; 1.0 records 12 hours of four FOVs of 384 x 384 pixels each.

    Returns
    -------
    list of ExperimentSpec
        ``er_widefield`` (30 min), ``mito_confocal`` (15 min), ``lysosome_slow`` (60 min, one channel more).
    """
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    hours = 12 * scale

    def experiment(name: str, interval_minutes: float, **options) -> ExperimentSpec:
        n_frames = max(2, round(hours * 60 / interval_minutes))
        return ExperimentSpec(
            name,
            n_frames=n_frames,
            interval_minutes=interval_minutes,
            fovs_per_well=2,
            shape=(1, 384, 384),
            infection_mean_hours=4.0,
            **options,
        )

    return [
        experiment(
            "er_widefield",
            30.0,
            reporter="er",
            n_cells=30,
            start_hpi=4.0,
            channel_names=("Phase3D", "GFP"),
            nuisance=Nuisance(gain=400.0, offset=110.0, blur_px=1.1, illumination=0.7, noise=0.04),
        ),
        experiment(
            "mito_confocal",
            15.0,
            reporter="mito",
            n_cells=22,
            start_hpi=3.0,
            channel_names=("RFP", "Phase3D"),
            reporter_channel="RFP",
            nuisance=Nuisance(gain=1100.0, offset=420.0, blur_px=0.5, illumination=0.2, noise=0.1),
        ),
        experiment(
            "lysosome_slow",
            60.0,
            reporter="lysosome",
            n_cells=40,
            start_hpi=5.0,
            channel_names=("DAPI", "Phase3D", "GFP"),
            nuisance=Nuisance(gain=230.0, offset=250.0, blur_px=0.8, illumination=0.4, noise=0.07),
        ),
    ]
