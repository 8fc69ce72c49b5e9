"""What tests of this and of other projects can import: fixtures, encoded pixels, hypothesis strategies.

* ``viscy_data.testing.fixtures``: pytest fixtures with small experiments of known truth in every store format. In a
  test module or in the top ``conftest.py``: ``pytest_plugins = ["viscy_data.testing.fixtures"]``.
* ``viscy_data.testing.encoding``: pixels that say where they come from, for tests of readers.
* ``viscy_data.testing.foreign``: plates and images as other programs write them, with any order of axes and any codec.
* ``viscy_data.testing.serving``: a web server on loopback, for tests of remote stores.
* ``viscy_data.testing.datamodules``: a small instance of every data module, and the data that they read.
* ``viscy_data.testing.training``: a model that keeps the batches it is given, and a quiet trainer.
* ``viscy_data.testing.strategies``: random lineages, tracking tables and anchor tables for hypothesis.
* ``viscy_data.testing.trackers``: files as TrackMate, btrack and the Cell Tracking Challenge write them.

pytest and hypothesis are imported by these modules only, never by the package itself. Needs the extra ``triplet``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "encoding": ["Encoding", "PixelOrigin", "write_encoded_plate"],
        "fixtures": ["EncodedPlates", "PLATE_FORMATS", "PlateFormat", "SyntheticExperiments"],
        "foreign": ["write_foreign_image", "write_foreign_plate", "write_foreign_series"],
        "datamodules": ["DATA_MODULES", "write_data"],
        "serving": ["served"],
        "training": ["Recorder", "StopAfter", "last_image", "quiet_trainer"],
    },
)
