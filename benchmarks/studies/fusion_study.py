"""Fusion, missing modalities and balance on spoken digits."""

from __future__ import annotations

from benchmarks.studies.rows import Run
from benchmarks.studies.settings import fusion, only
from benchmarks.studies.table import Study

STUDIED = (
    "early",
    "mid: bottleneck (MBT)",
    "late: mean",
    "gated",
    "low-rank tensor (LMF)",
    "directed cross-modal (MulT)",
)
DROPOUT = ["model.modality_dropout.image=0.3", "model.modality_dropout.audio=0.3"]
MODULATION = ["balance.ogm_ge.alpha=0.3", "balance.ogm_ge.noise=True"]

FUSION_STUDY = Study(
    "Fusion, missing modalities and balance",
    """1,797 handwritten digits (scikit-learn), each with its name spoken (synthetic) in noise of four times its power;
    450 pictures and the voices of the test are held out. Dropout hides each modality with probability 0.3 in
    training; modulation is OGM-GE. The columns evaluate with both modalities and with one removed.""",
    "configs/fusion_study.py",
    [
        Run(
            {"fusion": name, "modality dropout": "yes" if drop else "no", "modulation": "OGM-GE" if modulate else "no"},
            [fusion(name), *(DROPOUT if drop else ()), *(MODULATION if modulate else ())],
        )
        for name in STUDIED
        for drop in (False, True)
        for modulate in (False, True)
    ],
    {"both": only("all"), "image only": only("image"), "speech only": only("audio")},
)
