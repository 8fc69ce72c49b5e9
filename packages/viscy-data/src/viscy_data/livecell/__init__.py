"""LIVECell: phase contrast images of eight cell lines, every cell outlined, as TIFF and COCO files [1]_.

.. [1] Edlund et al., "LIVECell: a large-scale dataset for label-free live cell segmentation", Nature Methods, 2021.
"""

from viscy_data.livecell.datamodule import LiveCellDataModule
from viscy_data.livecell.datasets import LiveCellDataset, LiveCellTestDataset

__all__ = ["LiveCellDataModule", "LiveCellDataset", "LiveCellTestDataset"]
