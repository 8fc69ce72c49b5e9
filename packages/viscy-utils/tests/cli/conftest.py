from __future__ import annotations

import os
import stat

import pytest


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Be job 7 of SLURM, whose ``scontrol`` writes down what it is asked; return what that was, line by line."""
    scontrol, asked = tmp_path / "bin" / "scontrol", tmp_path / "asked"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_LOCALID": "0"}
    job |= {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    for name, value in {**job, "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}.items():
        monkeypatch.setenv(name, value)
    return lambda: asked.read_text().splitlines() if asked.exists() else []
