"""The features of a record in TFDS's terms, and records as bytes."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.example_serializer import ExampleSerializer


def create_features(classes: Sequence[str] | None) -> tfds.features.FeaturesDict:
    """The features of a record (see `record`); the classes are None until they are read from disk.

    `frames` are the bytes of JPEGs, not images, since TFDS decodes those with TensorFlow alone.
    `times` (of the frames), `segments` (of the action) and `duration` are seconds. `localised` is
    false where the action's segments are not annotated.
    """
    label = tfds.features.ClassLabel(names=None if classes is None else list(classes))
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "labels": tfds.features.Sequence(label),
            "frames": tfds.features.Tensor(shape=(None,), dtype=np.object_),
            "times": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "segments": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "localised": tfds.features.Scalar(dtype=np.bool_),
            "available": tfds.features.Scalar(dtype=np.int64),
            "duration": tfds.features.Scalar(dtype=np.float32),
            "width": tfds.features.Scalar(dtype=np.int64),
            "height": tfds.features.Scalar(dtype=np.int64),
        }
    )


def describe_features(classes: Sequence[str]) -> Any:
    """What TFDS writes of them into its features.json."""
    return json_format.MessageToDict(create_features(classes).to_proto())


@functools.lru_cache(maxsize=1)
def _create_serialiser(classes: tuple[str, ...]) -> tuple[Any, ExampleSerializer]:
    features = create_features(classes)
    return features, ExampleSerializer(features.get_serialized_info())


def serialise(record: dict[str, Any], classes: tuple[str, ...]) -> bytes:
    """A record as TFDS writes it; equal records are equal bytes."""
    features, serialiser = _create_serialiser(classes)
    example = serialiser.get_tf_example(features.encode_example(record))
    return example.SerializeToString(deterministic=True)
