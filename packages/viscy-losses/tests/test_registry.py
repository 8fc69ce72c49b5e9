"""Losses by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from torch import nn

from viscy_losses import LossRegistry, SimCLRLoss


def test_built_in_losses_are_available():
    names = LossRegistry.available()
    assert names == sorted(names)
    assert {"simclr", "clip", "siglip", "supcon", "triplet", "vicreg", "barlow_twins", "moco", "focal"} <= set(names)
    assert {"nt_xent", "nt_xent_hcl", "debiased", "dcl"} <= set(names)


def test_created_with_options():
    loss = LossRegistry.create("simclr", temperature=0.3)
    assert isinstance(loss, SimCLRLoss)
    assert loss.temperature == 0.3


def test_unknown_names_list_the_near_ones():
    with pytest.raises(KeyError, match="no loss is called 'simclar'; did you mean 'simclr'"):
        LossRegistry.create("simclar")
    with pytest.raises(KeyError, match="did you mean 'vicreg'"):
        LossRegistry.create("VICReg2")
    with pytest.raises(KeyError, match=r"no loss is called 'xyzzy'; available: barlow_twins, clip"):
        LossRegistry.create("xyzzy")


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="temprature"):
        LossRegistry.create("simclr", temprature=0.3)


def test_losses_of_others_can_be_registered_once():
    @LossRegistry.register("pull_of_this_test")
    class Pull(nn.Module):
        pass

    assert isinstance(LossRegistry.create("pull_of_this_test"), Pull)
    assert "pull_of_this_test" in LossRegistry.available()
    LossRegistry.register("pull_of_this_test")(Pull)
    with pytest.raises(ValueError, match=r"loss 'simclr' is viscy_losses.simclr.SimCLRLoss; choose another name"):
        LossRegistry.register("simclr")(Pull)


def test_importing_the_package_does_not_import_torch():
    code = "import sys, viscy_losses; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
