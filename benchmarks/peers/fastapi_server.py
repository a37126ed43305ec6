"""How a model is usually put behind FastAPI: one picture at a time, in FastAPI's threads."""

import io
import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

app = FastAPI()
session = onnxruntime.InferenceSession(sys.argv[1])


@app.post("/predict")
def predict(files: UploadFile) -> dict[str, list[float]]:
    """Probabilities of one picture."""
    image = np.asarray(Image.open(io.BytesIO(files.file.read())).convert("RGB"))
    (probabilities,) = session.run(["probabilities"], {"image": image[None]})
    return {"probabilities": probabilities[0].tolist()}


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
