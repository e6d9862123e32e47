"""The encoder, what is pre-trained with it, and what is fine-tuned from it."""

from data2vec2.models.classifier import Classifier
from data2vec2.models.ctc import Recognized, SpeechRecognizer
from data2vec2.models.encoder import Encoded, Encoder
from data2vec2.models.pretraining import Data2Vec2, Pretrained

__all__ = ["Classifier", "Data2Vec2", "Encoded", "Encoder", "Pretrained", "Recognized", "SpeechRecognizer"]
