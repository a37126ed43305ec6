"""The same model behind LitServe, with its batching."""

import io
import sys

import litserve
import numpy as np
import onnxruntime
from fastapi import Request, UploadFile
from PIL import Image


class API(litserve.LitAPI):
    """The model, as LitServe asks for it."""

    def setup(self, device: str) -> None:
        self.session = onnxruntime.InferenceSession(sys.argv[1])

    def decode_request(self, request: Request) -> np.ndarray:
        upload: UploadFile = request["files"]  # LitServe gives the form
        return np.asarray(Image.open(io.BytesIO(upload.file.read())).convert("RGB"))

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        return self.session.run(["probabilities"], {"image": batch})[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, list[float]]:
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    litserve.LitServer(API(max_batch_size=32, batch_timeout=0.005), accelerator="cpu").run(
        port=int(sys.argv[2]), generate_client_file=False, log_level="warning"
    )
