"""What can be made of a pre-trained encoder."""

from data2vec2.commands.jobs.base import Data, Job
from data2vec2.commands.jobs.classify import PicturesJob, SoundsJob
from data2vec2.commands.jobs.ctc import CtcJob
from data2vec2.commands.jobs.sentences import NumbersJob, SentencesJob

JOBS: dict[tuple[str, str], Job] = {
    ("classify", "image"): PicturesJob(),
    ("classify", "audio"): SoundsJob(),
    ("classify", "text"): SentencesJob(),
    ("ctc", "audio"): CtcJob(),
    ("regress", "text"): NumbersJob(),
}
"""By task and the kind of the model's modality."""

__all__ = ["JOBS", "Data", "Job"]
