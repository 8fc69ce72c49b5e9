"""LIVECell: phase contrast images of eight cell lines, every cell outlined, as TIFF and COCO files [1]_.

.. [1] Edlund et al., "LIVECell: a large-scale dataset for label-free live cell segmentation", Nature Methods, 2021.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["LiveCellDataModule"],
        "datasets": ["LiveCellDataset", "LiveCellTestDataset"],
    },
)
