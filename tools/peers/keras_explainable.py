"""keras-explainable's own TTA-CAM on Keras's Xception, for bench_peers.py.

    python keras_explainable.py IMAGE.npy SIDE THREADS

Speaks the protocol of worker.py. `frame` is its documented TTA, scales 0.5, 1, 1.5, 2 and
flips: ten passes in float. Random weights: they change no time. keras-explainable 0.0.2
needs TensorFlow 2.12 (Python 3.11 or older).
"""

import sys

from protocol import serve

# This file has the name of the package that it is about.
sys.path.pop(0)

import keras_explainable as ke  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def main():
    image, side, threads = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # The top by hand: Keras's own wants a fixed size.
    body = tf.keras.applications.Xception(weights=None, include_top=False, input_shape=(None, None, 3))
    pooled = tf.keras.layers.GlobalAveragePooling2D()(body.output)
    logits = tf.keras.layers.Dense(1000)(pooled)
    model = ke.inspection.expose(tf.keras.Model(body.input, logits))
    tta = ke.methods.meta.tta(ke.methods.cams.cam, scales=[0.5, 1.0, 1.5, 2.0], hflip=True)
    units = np.zeros((1, 1), np.int32)

    def picture():
        x = tf.image.resize(image[None].astype(np.float32), (side, side))
        return x / 127.5 - 1

    # `ke.explain` would trace its function anew in each call; that is not what is compared.
    view = tf.function(lambda x: ke.methods.cams.cam(model, x, units))
    frame = tf.function(lambda x: tta(model, x, units))
    serve({"view": lambda: view(picture()), "frame": lambda: frame(picture())})


if __name__ == "__main__":
    main()
