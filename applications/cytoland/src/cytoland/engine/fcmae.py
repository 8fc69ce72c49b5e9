"""Pre-training of a masked autoencoder on stacks without targets, and its fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cytoland.engine.masked_mse import MaskedMSELoss
from cytoland.engine.translation import VSUNet
from viscy_data.checks import is_number
from viscy_data.errors import InputError
from viscy_models.checkpoints import load_weights

__all__ = ["FcmaeUNet"]


class FcmaeUNet(VSUNet):
    """Pre-train a `FullyConvolutionalMAE` by hiding part of its input, or fine-tune it to translate.

    Which of both, ``model_config: {pretraining: true | false}`` says; true by default. Pre-training needs ``source``
    alone. Predictions of a network that pre-trains are reconstructions of the whole, with nothing hidden.

    Parameters
    ----------
    fit_mask_ratio : float, default 0.0
        Share of the image that is hidden in training and validation, from 0 to below 1; more than 0 to pre-train.
    encoder_only : bool, default False
        Take the encoder of ``ckpt_path`` alone: for a decoder of another number of channels, or a fresh one.
    **kwargs
        Arguments of :class:`VSUNet` but for ``architecture``. ``loss_function`` takes prediction, image and mask in
        pre-training (:class:`MaskedMSELoss` by default), prediction and target otherwise.

    Raises
    ------
    ValueError
        As :class:`VSUNet`.
    """

    def __init__(self, fit_mask_ratio: float = 0.0, encoder_only: bool = False, **kwargs: Any) -> None:
        if not (is_number(fit_mask_ratio, 0) and fit_mask_ratio < 1):
            expected = "a share from 0 to below 1"
            raise InputError("FcmaeUNet", field="fit_mask_ratio", found=repr(fit_mask_ratio), expected=expected)
        if encoder_only and kwargs.get("ckpt_path") is None:
            expected = "false without ckpt_path, whose encoder it would take"
            raise InputError("FcmaeUNet", field="encoder_only", found="true", expected=expected)
        self._encoder_only = encoder_only
        super().__init__(architecture="fcmae", **kwargs)
        self.fit_mask_ratio = fit_mask_ratio
        if not self.reconstructs and fit_mask_ratio:
            expected = "0 to translate: nothing is hidden from a network that is not pre-trained"
            raise InputError("FcmaeUNet", field="fit_mask_ratio", found=str(fit_mask_ratio), expected=expected)

    def complete_config(self, architecture: str, model_config: dict | None) -> dict[str, Any]:
        """Return the arguments of the network as they are."""
        return dict(model_config or {})

    def default_loss(self) -> nn.Module:
        """Return the loss of the hidden part, or the squared error to the target."""
        return MaskedMSELoss() if self.reconstructs else nn.MSELoss()

    def load_start(self, path: str) -> None:
        """Begin with the weights of a checkpoint, or of its encoder."""
        if self._encoder_only:
            load_weights(self.model.encoder, path, part="encoder")
        else:
            load_weights(self.model, path)

    @property
    def reconstructs(self) -> bool:
        """Whether the network pre-trains."""
        return self.model.pretraining

    def prepare_data(self) -> None:
        """Refuse data that do not fit, and a pre-training that hides nothing."""
        super().prepare_data()
        if self.trainer.state.fn == "fit" and self.reconstructs and not self.fit_mask_ratio:
            expected = "more than 0, such as 0.5, where model_config says pretraining: true (the default)"
            raise InputError("FcmaeUNet", field="fit_mask_ratio", found="0", expected=expected)

    def forward_fit_fcmae(
        self, batch: Mapping[str, Any], return_target: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Reconstruct a batch of which a part is hidden; return reconstruction, image if asked for, and loss."""
        predicted, mask = self.model(batch["source"], mask_ratio=self.fit_mask_ratio)
        loss = self.loss_function(predicted, batch["source"], mask)
        return predicted, batch["source"] if return_target else None, loss

    def forward_fit_supervised(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Translate a batch; return the prediction, the target, the loss."""
        predicted, target, loss = super().fit_task(batch)
        return predicted, target, loss

    def forward_fit_task(self, batch: Mapping[str, Any], batch_idx: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Do what the network is trained for."""
        return self.forward_fit_fcmae(batch) if self.reconstructs else self.forward_fit_supervised(batch)

    def fit_task(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return prediction, target and loss of a batch."""
        return self.forward_fit_task(batch, 0)
