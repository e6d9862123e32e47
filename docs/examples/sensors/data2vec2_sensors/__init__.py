"""Series of sensors, as a modality of data2vec2."""

from data2vec2.modalities.spec import Spec, Words
from data2vec2_sensors.config import SensorConfig, SensorDataConfig, SensorFinetuneDataConfig
from data2vec2_sensors.recipes import sensors_classify_tiny, sensors_tiny

SPEC = Spec(
    name="sensors",
    words=Words(one="series", many="series", unit="series", largest="a crop"),
    config=SensorConfig,
    data=SensorDataConfig,
    finetune_data=SensorFinetuneDataConfig,
    recipes={"sensors_tiny": sensors_tiny},
    finetune={"classify": {"sensors_classify_tiny": sensors_classify_tiny}},
    tools="data2vec2_sensors.tools:SensorTools",
)
