"""One peer engine in a process of its own, driven by lines on standard input.

    python worker.py ENGINE MODEL HEAD.npy IMAGE.npy SIDE THREADS

ENGINE is onnxruntime, openvino or litert. After loading and warming up it prints
`ready`; each line `view` or `frame` is answered with the milliseconds that one took:
`view` is a pass at scale 1, `frame` starts at the decoded RGB image and ends at the
merged map: the eight views (scales 0.5, 1, 1.5, 2, each flipped and not), their
resizing, the class activation map of the identity view's top-1 class, and the mean.
"""

import sys

import cv2
import numpy as np
from protocol import serve

SCALES = (1.0, 0.5, 1.5, 2.0)


def onnxruntime_engine(model, threads, sides):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["features", "logits"], {session.get_inputs()[0].name: x})


def openvino_engine(model, threads, sides):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    requests = {}
    for side in sides:
        network = core.read_model(model)
        network.reshape([1, 3, side, side])
        requests[side] = core.compile_model(network, "CPU", settings).create_infer_request()

    def run(x):
        results = requests[x.shape[2]].infer({0: x}, share_inputs=True, share_outputs=True)
        return [results[0], results[1]]

    return run


def litert_engine(model, threads, sides):
    """A .tflite file with outputs features [1, h, w, c] and logits [1, classes]."""
    from ai_edge_litert.interpreter import Interpreter

    interpreters = {}
    for side in sides:
        interpreter = Interpreter(model, num_threads=threads)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [1, side, side, 3])
        interpreter.allocate_tensors()
        interpreters[side] = interpreter

    def run(x):
        interpreter = interpreters[x.shape[2]]
        source = interpreter.get_input_details()[0]
        x = x.transpose(0, 2, 3, 1)
        if source["dtype"] != np.float32:
            scale, zero = source["quantization"]
            low, high = np.iinfo(source["dtype"]).min, np.iinfo(source["dtype"]).max
            x = np.clip(np.rint(x / scale) + zero, low, high).astype(source["dtype"])
        interpreter.set_tensor(source["index"], x)
        interpreter.invoke()
        out = {}
        for detail in interpreter.get_output_details():
            value = interpreter.get_tensor(detail["index"])
            if value.dtype != np.float32:
                scale, zero = detail["quantization"]
                value = (value.astype(np.float32) - zero) * scale
            out[value.ndim] = value
        return [out[4].transpose(0, 3, 1, 2), out[2]]

    return run


ENGINES = {"onnxruntime": onnxruntime_engine, "openvino": openvino_engine, "litert": litert_engine}


def main():
    engine, model, head, image, side, threads = sys.argv[1:7]
    side, threads = int(side), int(threads)
    cv2.setNumThreads(threads)
    head, image = np.load(head), np.load(image)
    sides = [int(np.float32(s) * side) for s in SCALES]
    run = ENGINES[engine](model, threads, sides)

    def infer(side, flip):
        source = image[:, ::-1] if flip else image
        x = cv2.resize(source, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        x = x * np.float32(1 / 127.5) - np.float32(1)
        return run(np.ascontiguousarray(x.transpose(2, 0, 1))[None])

    def frame():
        weights, merged = None, np.zeros((side, side), np.float32)
        for s in sides:
            for flip in (False, True):
                features, logits = infer(s, flip)
                if weights is None:
                    weights = np.ascontiguousarray(head[:, logits.argmax()])
                small = np.tensordot(weights, features[0], (0, 0))
                if flip:
                    small = small[:, ::-1]
                merged += cv2.resize(np.ascontiguousarray(small), (side, side), interpolation=cv2.INTER_LINEAR)
        return merged / (2 * len(sides))

    fixed = np.zeros((1, 3, side, side), np.float32)
    serve({"view": lambda: run(fixed), "frame": frame})


if __name__ == "__main__":
    main()
