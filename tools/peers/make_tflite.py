"""Xception as an int8 .tflite file for bench_peers.py: Keras's own topology, random weights,
quantized by TensorFlow's converter (full integer, per channel), H and W dynamic.

    python tools/peers/make_tflite.py --out xception-int8.tflite     # requirements-keras.txt

Outputs: features [1, h, w, 2048] and logits [1, 1000], in float as LiteRT hands them out.
"""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf


def network():
    """Random weights that keep the range of the activations: He for every kernel."""
    tf.keras.utils.set_random_seed(1)
    body = tf.keras.applications.Xception(weights=None, include_top=False, input_shape=(None, None, 3))
    pooled = tf.keras.layers.GlobalAveragePooling2D()(body.output)
    logits = tf.keras.layers.Dense(1000)(pooled)
    return tf.keras.Model(body.input, [body.output, logits])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--side", type=int, default=299, help="of the calibration pictures (%(default)s)")
    args = parser.parse_args()
    random = np.random.default_rng(1)

    def calibration():
        for _ in range(4):
            yield [random.uniform(-1, 1, (1, args.side, args.side, 3)).astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(network())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    args.out.write_bytes(converter.convert())


if __name__ == "__main__":
    main()
