"""JavaScript answers as Python does: the contract, the pixels and the predictions, under Node."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from handmade import INFO, colours, field, model_of, with_info
from PIL import Image

from cifar_onnx import Classifier, ContractError, ImageError, contract, images, resizing, site

pytestmark = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")


PACKAGES = pytest.mark.skipif(
    not all((site.JS / "node_modules" / name).is_dir() for name in ("onnxruntime-web", "sharp", "typescript")),
    reason="onnxruntime-web, sharp and typescript are not installed: make web",
)

# Else Node compiles 25 MB of WebAssembly twice, for pictures that are few.
NODE = ["node", "--liftoff-only"]


def node(*words: str | Path, script: Path = site.JS / "node.mjs") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NODE, script, *words], capture_output=True, text=True, timeout=60)


def evaluated(code: str, *words: str | Path) -> list[Any]:
    """What a module prints, line by line, as JSON."""
    modules = (
        f'import * as js from "{(site.JS / "classifier.mjs").as_uri()}"; import {{ readFileSync }} from "node:fs";'
    )
    command = [*NODE, "--input-type=module", "-e", modules + code, "-", *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of every kind that both sides decode."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (9, 12, 4), dtype=np.uint8)).resize(
        (61, 47), Image.Resampling.BICUBIC
    )
    rgb = image.convert("RGB")
    paths = []

    def save(name: str, of: Image.Image, **settings: object) -> None:
        paths.append(folder / name)
        of.save(paths[-1], **settings)  # type: ignore[arg-type]

    for height, width in ((1, 1), (5, 7), (64, 10), (32, 32), (200, 300)):
        noise = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        save(f"{height}x{width}.png", noise)
    for mode in ("1", "L", "LA", "P", "RGBA"):
        save(f"{mode}.png", image.convert(mode))
    save("16-bit.png", Image.fromarray(generator.integers(0, 65536, (20, 30)).astype(np.uint16)))
    save("hole.gif", rgb.quantize(16), transparency=3)
    save("lossless.webp", image, lossless=True, exact=True)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"{orientation}.png", rgb, exif=exif)
    for sampling in range(3):
        save(f"sampling {sampling}.jpg", rgb, subsampling=sampling)
    save("lossy.webp", rgb)
    save("ink.jpg", rgb.convert("CMYK"))
    return paths


@PACKAGES
def test_sharp_decodes_to_pillows_pixels(pictures: list[Path]) -> None:
    decode = (site.JS / "decode.mjs").as_uri()
    code = f"""
        const {{ decode }} = await import("{decode}");
        const {{ createHash }} = await import("node:crypto");
        for (const path of process.argv.slice(2)) {{
          const {{ data, width, height }} = await decode(readFileSync(path));
          console.log(JSON.stringify([height, width, createHash("sha256").update(data).digest("hex")]));
        }}
    """
    for path, found in zip(pictures, evaluated(code, *pictures), strict=True):
        pixels = images.decode(path)
        assert found == [*pixels.shape[:2], hashlib.sha256(pixels.tobytes()).hexdigest()], path.name


def test_squares_are_those_of_python(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = [
        (1, 1),
        (2, 3),
        (16, 31),
        (32, 32),
        (100, 37),
        (480, 640),
        (1, 20_000),
        (3, 60_000),
        (20_000, 1),
        (60_000, 3),
    ]
    shapes += [tuple(generator.integers(1, 400, 2).tolist()) for _ in range(12)]
    asked, expected = [], []
    for number, (height, width) in enumerate(shapes):
        pixels = generator.integers(256, size=(height, width, 3), dtype=np.uint8)
        if number % 2:  # as are those of 60,000
            pixels[:] = 255
        (tmp_path / str(number)).write_bytes(pixels.tobytes())
        for size, mode in product((8, 32, 33, 224), get_args(resizing.ResizeMode)):
            asked.append([str(tmp_path / str(number)), height, width, size, mode])
            expected.append(hashlib.sha256(resizing.resize(pixels, size, mode).tobytes()).hexdigest())
    code = f"""
        const {{ resized }} = await import("{(site.JS / "resizing.mjs").as_uri()}");
        const {{ createHash }} = await import("node:crypto");
        for (const [path, height, width, size, mode] of JSON.parse(readFileSync(process.argv[2]))) {{
          const square = resized({{ data: readFileSync(path), width, height }}, size, mode);
          console.log(JSON.stringify(createHash("sha256").update(square).digest("hex")));
        }}
    """
    (tmp_path / "asked").write_text(json.dumps(asked))
    for case, found, own in zip(asked, evaluated(code, tmp_path / "asked"), expected, strict=True):
        assert found == own, case[1:]


@PACKAGES
def test_other_formats_are_refused_here_and_left_to_other_users_of_sharp(tmp_path: Path) -> None:
    picture = Image.new("RGB", (3, 2))
    paths = [tmp_path / name for name in ("a.tiff", "a.svg", "a.png", "empty")]
    picture.save(paths[0])
    paths[1].write_text('<svg xmlns="http://www.w3.org/2000/svg" width="3" height="2"></svg>')
    picture.save(paths[2])
    paths[3].write_bytes(b"")
    decode = (site.JS / "decode.mjs").as_uri()
    code = f"""
        const {{ decode }} = await import("{decode}");
        const sharp = (await import("node:module")).createRequire("{decode}")("sharp");
        for (const path of process.argv.slice(2)) {{
          const bytes = readFileSync(path);
          const here = await decode(bytes).then(({{ width }}) => width, (error) => error.message);
          const there = bytes.length && (await sharp(bytes).metadata()).width;
          console.log(JSON.stringify([here, there]));
        }}
    """
    refused = "not a picture in one of the formats GIF, JPEG, PNG, WEBP"
    with pytest.raises(ImageError) as empty:
        images.decode(b"")
    assert evaluated(code, *paths) == [[refused, 3], [refused, 3], [3, 3], [empty.value.reason, 0]]


@PACKAGES
def test_of_what_phones_write_the_advice_is_that_of_python(tmp_path: Path) -> None:
    code = f"""
        const {{ decode }} = await import("{(site.JS / "decode.mjs").as_uri()}");
        for (const path of process.argv.slice(2)) {{
          await decode(readFileSync(path)).catch(({{ message }}) => console.log(JSON.stringify(message)));
        }}
    """
    paths = [tmp_path / str(number) for number in range(6)]
    for path, kind in zip(paths, (*images._PHONES, b"ftypisom", b"heic"), strict=True):
        path.write_bytes(b"\0\0\0\x18" + kind + bytes(9))
    advised = []
    for path, said in zip(paths, evaluated(code, *paths), strict=True):
        with pytest.raises(ImageError) as refused:
            images.decode(path)
        advised.append(said.partition("WEBP")[2])
        assert advised[-1] == str(refused.value).partition("WEBP")[2]
    assert advised == [": convert it to JPEG"] * 4 + [""] * 2


@PACKAGES
def test_an_array_buffer_is_decoded_as_its_bytes_are(pictures: list[Path]) -> None:
    code = f"""
        const {{ decode }} = await import("{(site.JS / "decode.mjs").as_uri()}");
        const bytes = new Uint8Array(readFileSync(process.argv[2]));
        for (const file of [bytes, bytes.buffer]) console.log(JSON.stringify(Array.from((await decode(file)).data)));
    """
    of_bytes, of_buffer = evaluated(code, pictures[0])
    assert of_bytes == of_buffer


@PACKAGES
def test_what_is_not_bytes_is_neither_a_model_nor_a_picture(model: Path) -> None:
    """The promise of a forgotten `await`, and what a path or a request gives; other frames' buffers are bytes."""
    code = f"""
        const {{ decode }} = await import("{(site.JS / "decode.mjs").as_uri()}");
        const {{ runInNewContext }} = await import("node:vm");
        const readers = [(file) => js.Classifier.load(file, {{}}), js.readContract, decode];
        const bytes = Uint8Array.from(readFileSync(process.argv[2]));
        const given = [
          ...[Promise.resolve(bytes), new Response(bytes), new Blob([bytes]), new DataView(bytes.buffer)],
          ...[process.argv[2], Array.from(bytes), undefined, null],
        ];
        const refused = (error) => (error instanceof js.InputError ? error.message : String(error));
        for (const read of readers) {{
          for (const file of given) console.log(JSON.stringify(await read(file).catch(refused)));
        }}
        const elsewhere = runInNewContext("new ArrayBuffer(length)", {{ length: bytes.length }});
        new Uint8Array(elsewhere).set(bytes);
        console.log(JSON.stringify([elsewhere instanceof ArrayBuffer, (await js.readContract(elsewhere)).digest]));
        const picture = Buffer.from(process.argv[3], "base64");
        const array = runInNewContext("Uint8Array.from(list)", {{ list: Array.from(picture) }});
        console.log(JSON.stringify([array instanceof Uint8Array, (await decode(array)).width > 0]));
    """
    first = contract.read(model)[1].golden[0].encoded
    *said, elsewhere, array = evaluated(code, model, base64.b64encode(first).decode())
    assert said == ["give a file's bytes, as a Uint8Array or an ArrayBuffer (is an await missing?)"] * 3 * 8
    assert elsewhere == [False, contract.read(model)[1].digest]
    assert array == [False, True]


@PACKAGES
def test_node_refuses_the_sides_that_python_refuses(model: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{width}x{height}.png" for width, height in ((65_535, 1), (65_536, 1), (1, 65_536))]
    for path in paths:
        Image.new("L", tuple(map(int, path.stem.split("x")))).save(path)
    longest, *longer = map(json.loads, node(model, *paths, "--json").stdout.splitlines())
    assert longest["label"] == Classifier(model)(paths[0]).label
    for path, said in zip(paths[1:], longer, strict=True):
        with pytest.raises(ImageError) as refused:
            images.decode(path)
        assert f"{path}: {said['error']}" == str(refused.value)


@PACKAGES
@pytest.mark.parametrize(
    "sets", ['"lac", "alpha": 0.1, "threshold": 0.919202', '"aps", "alpha": 0.1, "threshold": 0.949202']
)
def test_node_answers_as_python(sets: str, changed: Callable[..., Path], digits: Path, pictures: list[Path]) -> None:
    model = changed(b'"lac", "alpha": 0.1, "threshold": 0.019202', sets.encode(), seal=True)
    paths = [*sorted(digits.iterdir()), *pictures]
    result = node(model, *paths, "--json", "--top-k", "3")
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    expected = [prediction.as_dict(3) for prediction in Classifier(model)(paths)]
    assert {len(each["labels"]) for each in expected} > {1, 2}
    assert {each["unknown"] for each in expected} == {True, False}
    for path, answer, right in zip(paths, answers, expected, strict=True):
        assert answer.pop("path") == str(path)
        assert answer.keys() == right.keys()
        assert [answer[key] for key in ("label", "labels", "unknown")] == [
            right[key] for key in ("label", "labels", "unknown")
        ]
        assert [each["label"] for each in answer["top"]] == [each["label"] for each in right["top"]]
        for one, other in zip(answer["top"], right["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


@PACKAGES
def test_the_map_is_that_of_the_label(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(colours())
    code = f"""
        const ort = await import("{(site.JS / "node_modules/onnxruntime-web/dist/ort.node.min.mjs").as_uri()}");
        ort.env.wasm.numThreads = 1;
        const classifier = await js.Classifier.load(readFileSync(process.argv[2]), ort);
        const data = new Uint8Array(8 * 8 * 3);
        data.set([0, 50, 0, 9, 200, 0, 0, 100, 0, 0, 0, 80, 7]);
        console.log(JSON.stringify(await classifier.classify({{ data, width: 8, height: 8 }})));
    """
    (answer,) = evaluated(code, tmp_path / "m.onnx")
    assert answer["label"] == "green"
    assert answer["map"] == {"height": 8, "width": 8, "values": [0.25, 1, 0.5, *[0] * 61]}


@PACKAGES
def test_what_browsers_give_is_taken_as_it_comes(model: Path) -> None:
    """The ArrayBuffer of a response, and the RGBA of a canvas; what else there is, is no picture."""
    code = f"""
        const ort = await import("{(site.JS / "node_modules/onnxruntime-web/dist/ort.node.min.mjs").as_uri()}");
        ort.env.wasm.numThreads = 1;
        const file = Uint8Array.from(readFileSync(process.argv[2])).buffer;
        const classifier = await js.Classifier.load(file, ort);
        const data = Uint8Array.from({{ length: 64 * 4 }}, (_, at) => at);
        const [of, half] = [{{ width: 8, height: 8 }}, data.map((value, at) => (at % 4 === 3 ? value : value / 2))];
        for (const rgba of [data, half]) {{
          const canvas = {{ ...of, data: Uint8ClampedArray.from(rgba) }};
          const answers = [canvas, js.rgbOf(canvas)].map((each) => classifier.classify(each));
          console.log(JSON.stringify((await Promise.all(answers)).map((each) => each.probabilities)));
        }}
        const noPictures = [
          ...[null, data, {{ ...of, data: data.subarray(1) }}, {{ width: 0, height: 0, data: [] }}],
          ...[{{ ...of, data: Float32Array.from(data) }}, {{ ...of, data: Array.from(data) }}],
          ...[{{ width: -8, height: -8, data }}, {{ width: 2.5, height: 1, data: data.subarray(0, 10) }}],
        ];
        for (const none of noPictures) {{
          await classifier.classify(none).catch((error) => console.log(JSON.stringify([error.message])));
        }}
        await js.readContract(new ArrayBuffer()).catch((error) => console.log(JSON.stringify([error.message])));
    """
    *answers, empty = evaluated(code, model)
    pairs, refusals = answers[:2], answers[2:]
    assert [one == other for one, other in pairs] == [True, True]
    assert pairs[0] != pairs[1]
    assert len(refusals) == 8
    for (refusal,) in refusals:
        assert refusal.startswith("a picture is {data, width, height}")
    assert empty[0].startswith("an empty file")


@PACKAGES
def test_in_javascript_too_a_net_must_be_that_of_its_contract(tmp_path: Path, pictures: list[Path]) -> None:
    path = tmp_path / "model.onnx"
    info = {**INFO, "classes": ["red", "green", "blue"]}
    path.write_bytes(with_info(colours().replace(b"familiarity", b"familiaritY"), info))
    result = node(path, pictures[0])
    assert (result.returncode, result.stdout) == (2, "")
    sentence = f"{path}: onnxruntime-web cannot run it (it has no output familiarity)"
    assert result.stderr == f"error: {sentence}\n"

    path.write_bytes(colours(classes=["red", "green"]))
    result = node(path, pictures[0])
    assert result.returncode == 1
    assert "cannot run it (its contract names 2 classes, but it gives 3)" in result.stdout


def test_javascript_reads_files_longer_than_any_string(tmp_path: Path) -> None:
    """V8's strings have 512 MB at most."""
    code = """
        const bytes = readFileSync(process.argv[2]);
        const decode = TextDecoder.prototype.decode;
        TextDecoder.prototype.decode = function (part, ...options) {
          if (part.length > 2 ** 25) throw new RangeError("longer than a string");
          return decode.call(this, part, ...options);
        };
        console.log(JSON.stringify((await js.readContract(bytes)).classes));
    """
    (tmp_path / "large.onnx").write_bytes(model_of(INFO, versions=field(6, b"." * 2**25)))  # doc_string
    assert evaluated(code, tmp_path / "large.onnx") == [["a", "b"]]


def test_in_javascript_too_a_net_that_overflows_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model_of(INFO))
    code = """
        const contract = await js.readContract(readFileSync(process.argv[2]));
        const cam = { data: Float32Array.of(Infinity, 1, 0, 4, NaN, 2, 1, -1), dims: [1, 2, 2, 2] };
        const outputs = { cam, probabilities: { data: [NaN, NaN] }, familiarity: { data: [NaN] } };
        const classifier = new js.Classifier(contract, { run: async () => outputs }, class {});
        console.log(JSON.stringify(await classifier.classify({ data: new Uint8Array(3), width: 1, height: 1 })));
    """
    (answer,) = evaluated(code, tmp_path / "model.onnx")
    assert answer["unknown"]
    assert answer["labels"] == ["a"]
    assert answer["probability"] is None
    assert answer["map"]["values"] == [0, 0.25, 0, 1]


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_in_javascript_too_the_most_probable_label_is_in_every_set(method: str, tmp_path: Path) -> None:
    """Of equal ones the first, as `test_uncertainty.py` has it for Python."""
    sets = {"method": method, "alpha": 0.1, "threshold": -1}
    (tmp_path / "model.onnx").write_bytes(model_of({**INFO, "classes": ["a", "b", "c"], "sets": sets}))
    code = """
        const contract = await js.readContract(readFileSync(process.argv[2]));
        const outputs = { probabilities: { data: [0.2, 0.4, 0.4] }, familiarity: { data: [1] } };
        const classifier = new js.Classifier(contract, { run: async () => outputs }, class {});
        const { labels } = await classifier.classify({ data: new Uint8Array(3), width: 1, height: 1 });
        console.log(JSON.stringify(labels));
    """
    assert evaluated(code, tmp_path / "model.onnx") == [["b"]]


def test_runs_wait_for_each_other(tmp_path: Path) -> None:
    """Of all classifiers: where they overlap onnxruntime-web says "Session already started". One that fails ends its
    own turn only."""
    (tmp_path / "model.onnx").write_bytes(model_of(INFO))
    code = """
        const contract = await js.readContract(readFileSync(process.argv[2]));
        const outputs = { probabilities: { data: [0.7, 0.3] }, familiarity: { data: [1] } };
        let running = false;
        const run = async (answer) => {
          if (running) throw new Error("Session already started");
          running = true;
          await new Promise((resolve) => setTimeout(resolve, 5));
          running = false;
          return answer ?? Promise.reject(new Error("no memory"));
        };
        const [good, other, bad] = [outputs, outputs, undefined].map(
          (answer) => new js.Classifier(contract, { run: () => run(answer) }, class {}),
        );
        const picture = { data: new Uint8Array(3), width: 1, height: 1 };
        const answers = [good, good, bad, other, good].map((each) => each.classify(picture));
        for (const { value, reason } of await Promise.allSettled(answers)) {
          console.log(JSON.stringify(value?.label ?? reason.message));
        }
    """
    failed = "onnxruntime-web cannot run it (no memory)"
    assert evaluated(code, tmp_path / "model.onnx") == ["a", "a", failed, "a", "a"]


def test_onnxruntime_web_is_told_the_size_of_what_it_will_run(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model_of(INFO))
    code = """
        const create = (bytes, options) => console.log(JSON.stringify(options));
        const make = async (file, options) => js.Classifier.load(file, { InferenceSession: { create } }, options);
        for (const options of [undefined, { executionProviders: ["webgpu"] }]) {
          await make(readFileSync(process.argv[2]), options).catch(() => {});
        }
    """
    size = INFO["input"]["size"]
    told = {"freeDimensionOverrides": {"height": size, "width": size}}
    assert evaluated(code, tmp_path / "model.onnx") == [told, told | {"executionProviders": ["webgpu"]}]


def test_whatever_onnxruntime_web_throws_is_said(tmp_path: Path) -> None:
    """C++'s exceptions come as numbers."""
    (tmp_path / "model.onnx").write_bytes(model_of(INFO))
    code = """
        const file = readFileSync(process.argv[2]);
        const contract = await js.readContract(file);
        const picture = { data: new Uint8Array(3), width: 1, height: 1 };
        for (const thrown of [new Error("no memory"), 19451592, "out of memory", new RangeError(), undefined]) {
          const fail = () => Promise.reject(thrown);
          for (const work of [
            () => js.Classifier.load(file, { InferenceSession: { create: fail } }),
            () => new js.Classifier(contract, { run: fail }, class {}).classify(picture),
          ]) {
            await work().catch(({ message }) => console.log(JSON.stringify(message)));
          }
        }
    """
    reasons = ["no memory", "19451592", "out of memory", "RangeError", "undefined"]
    said = [f"onnxruntime-web cannot run it ({reason})" for reason in reasons for _ in range(2)]
    assert evaluated(code, tmp_path / "model.onnx") == said


@PACKAGES
def test_a_released_classifier_has_answered_what_it_was_asked_and_answers_no_more(model: Path) -> None:
    code = f"""
        const ort = await import("{(site.JS / "node_modules/onnxruntime-web/dist/ort.node.min.mjs").as_uri()}");
        ort.env.wasm.numThreads = 1;
        const classifier = await js.Classifier.load(readFileSync(process.argv[2]), ort);
        const picture = {{ data: new Uint8Array(3), width: 1, height: 1 }};
        const asked = classifier.classify(picture);
        await classifier.release();
        console.log(JSON.stringify((await asked).labels.length > 0));
        const refused = classifier.classify(picture).catch((error) => error instanceof js.InputError);
        console.log(JSON.stringify(await refused));
    """
    assert evaluated(code, model) == [True, True]


@PACKAGES
def test_node_replays_golden_samples(model: Path, changed: Callable[..., Path], tmp_path: Path) -> None:
    result = node(model, "--verify")
    assert result.returncode == 0
    assert "8 of 8 golden samples give the expected answer" in result.stdout
    result = node(changed(b'"label": "9"', b'"label": "4"', seal=True), "--verify")
    assert result.returncode == 1
    assert "WRONG, expected 4: the stage that differs is probabilities" in result.stdout
    data, known = contract.read(model)
    sample = known.info["golden"][0]
    off = {"familiarity": 1e6, "probabilities": [0.9 * p + 0.01 for p in sample["probabilities"]]}
    golden = [{**sample, stage: value} for stage, value in off.items()]
    info = {**known.info, "digest": contract.BLANK, "golden": golden}
    (tmp_path / "unlike.onnx").write_bytes(with_info(data, info))
    result = node(tmp_path / "unlike.onnx", "--verify")
    assert result.returncode == 1
    for stage in off:
        assert f": WRONG: the stage that differs is {stage}\n" in result.stdout


def test_javascript_replays_with_the_tolerance_of_the_precision(tmp_path: Path) -> None:
    """As `test_replay.py` has it for Python."""
    code = """
        const contract = await js.readContract(readFileSync(process.argv[2]));
        const outputs = { probabilities: { data: [0.5, 0.5] }, familiarity: { data: [-100] } };
        const classifier = new js.Classifier(contract, { run: async () => outputs }, class {});
        const replays = await classifier.verify(() => ({ data: new Uint8Array(3), width: 1, height: 1 }));
        console.log(JSON.stringify(replays.map(({ stage }) => stage)));
    """
    path, even = tmp_path / "model.onnx", {**SAMPLE, "probabilities": [0.5, 0.5]}
    for precision, allowed in (("fp32", 1e-3), ("fp16", 1e-2), ("int8", 2e-2), ("later", 1e-3), ("toString", 1e-3)):
        golden = [even, {**even, "label": "b"}, {**even, "label": "c"}]
        for share in (0.9, 1.1):
            off = share * allowed
            golden += [{**even, "probabilities": [0.5 + off, 0.5 - off]}]
            golden += [{**even, "familiarity": -100 / (1 + sign * off)} for sign in (1, -1)]
        path.write_bytes(model_of({**INFO, "precision": precision, "golden": golden}))
        right, wrong = [""] * 3, ["probabilities", "familiarity", "familiarity"]
        assert evaluated(code, path) == [["", "", "probabilities", *right, *wrong]], precision


def test_javascript_goes_on_after_a_golden_sample_that_it_cannot_decode(tmp_path: Path) -> None:
    """Or that is too large, as Python does; what else fails is no fault of the sample."""
    code = """
        const contract = await js.readContract(readFileSync(process.argv[2]));
        const outputs = { probabilities: { data: [0.5, 0.5] }, familiarity: { data: [1] } };
        const classifier = new js.Classifier(contract, { run: async () => outputs }, class {});
        const picture = { data: new Uint8Array(3), width: 1, height: 1 };
        const refuse = () => { throw new js.InputError("no"); };
        const answers = [refuse, () => ({ ...picture, width: 1_000_001 }), () => picture];
        const replays = await classifier.verify(() => answers.shift()());
        console.log(JSON.stringify(replays.map(({ stage, ok }) => [stage, ok])));
        const broken = classifier.verify(() => { throw new TypeError("a fault"); });
        console.log(JSON.stringify(await broken.catch(({ message }) => message)));
    """
    (path := tmp_path / "model.onnx").write_bytes(
        model_of({**INFO, "golden": [{**SAMPLE, "probabilities": [0.5] * 2}] * 3})
    )
    rows, broken = evaluated(code, path)
    assert rows[:2] == [["decode", False]] * 2
    assert rows[2][0] != "decode"
    assert broken == "a fault"


@PACKAGES
def test_what_node_cannot_use_is_said_in_a_sentence(model: Path, pictures: list[Path], tmp_path: Path) -> None:
    picture, bad = pictures[0], tmp_path / "bad.jpg"
    bad.write_text("no picture")
    result = node(model, bad, tmp_path / "nowhere.png", picture)
    assert result.returncode == 1
    rows = result.stdout.splitlines()
    assert "error: not a picture in one of the formats GIF, JPEG, PNG, WEBP" in rows[0]
    assert "error: no such file" in rows[1]
    assert "error" not in rows[2]
    for words, said in [
        ([model], "name a model and pictures"),
        ([model, picture, "--bright"], "Unknown option '--bright'"),
        ([model, picture, "--top-k", "0"], "--top-k: '0' is not a whole number from 1 up"),
        ([model, picture, "--top-k", "0x2"], "--top-k: '0x2' is not a whole number from 1 up"),
        ([model, picture, "--top-k", "-1"], "Option '--top-k' argument is ambiguous: node node.mjs model.onnx"),
        ([tmp_path / "nowhere.onnx", picture], "nowhere.onnx: no such file"),
        ([picture, picture], f"{picture}: not an ONNX file, or a damaged one"),
    ]:
        result = node(*words)
        assert (result.returncode, result.stdout) == (2, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert said in line


@PACKAGES
def test_names_from_anybody_do_not_steer_the_terminal(model: Path, tmp_path: Path) -> None:
    data, known = contract.read(model)
    (golden, *_) = known.info["golden"]
    classes = ["\x1b]0;mine\x07", *known.classes[1:]]
    info = {**known.info, "digest": contract.BLANK, "classes": classes, "golden": [{**golden, "name": "a\r"}]}
    (tmp_path / "odd.onnx").write_bytes(with_info(data, info))
    (tmp_path / "a.png").write_bytes(known.golden[0].encoded)
    (line,) = node(tmp_path / "odd.onnx", tmp_path / "a.png", "--top-k", "10").stdout.splitlines()
    assert r"\x1b]0;mine\x07" in line
    assert line.isprintable()
    assert node(tmp_path / "odd.onnx", "--verify").stdout.startswith(r"a\x0d")
    (tmp_path / "odd.onnx").write_bytes(model_of({**INFO, "format": "\x9bm"}))
    assert r'contract format "\x9bm" is unknown' in node(tmp_path / "odd.onnx", "--verify").stderr


@PACKAGES
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_node_ends_where_nothing_more_can_be_written(model: Path, pictures: list[Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [*NODE, site.JS / "node.mjs", model, *pictures[:3]]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: what was to be written: ENOSPC")


def test_node_says_what_it_takes() -> None:
    asked = node("--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("usage: node node.mjs model.onnx photo.png ...")
    assert all(option in asked.stdout for option in ("--json", "--top-k N", "--verify"))


def test_missing_packages_are_named(model: Path, tmp_path: Path) -> None:
    for name in ("node.mjs", "decode.mjs", "classifier.mjs", "resizing.mjs"):
        shutil.copy(site.JS / name, tmp_path)
    result = node(model, "a.png", script=tmp_path / "node.mjs")
    assert result.returncode == 2
    assert f"is not installed: npm install in {tmp_path}" in result.stderr


READ = """
    for (const path of process.argv.slice(2)) {
      const said = await js.readContract(readFileSync(path)).then(({ digest }) => ({ digest }), (error) => {
        if (!(error instanceof js.InputError)) throw error;
        return { error: error.message };
      });
      console.log(JSON.stringify(said));
    }
"""


SAMPLE: dict[str, Any] = {
    "name": "a",
    "file": "",
    "fingerprint": "",
    "label": "a",
    "logits": [1, 0],
    "probabilities": [0.7, 0.3],
}


def test_javascript_refuses_what_python_refuses(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    at = len(data) // 3
    files = [
        data,
        data[:-100],
        data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
        b"",
        b"hello",
        bytes(range(256)),
        model_of(INFO),
        model_of({**INFO, "format": 2}),
        *(model_of({**INFO, key: None}) for key in ("classes", "input", "sets", "unknown", "golden")),
        model_of({**INFO, "sets": {**INFO["sets"], "method": "guess"}}),
        model_of({**INFO, "unknown": {"threshold": 2.5}}),
        *(model_of({**INFO, "classes": value}) for value in ("ab", ["a", 1], ["a", ""], ["a", "a"], ["a", "\ud800"])),
        *(model_of({**INFO, "input": {"size": value, "resize": "crop"}}) for value in (0, -8, 8.5, "8", None)),
        *(model_of({**INFO, "temperature": value}) for value in (0, -1, float("nan"), float("inf"), None)),
        *(model_of({**INFO, key: value}) for key in ("cost", "metrics", "provenance") for value in (None, [], {})),
        model_of({**INFO, "metrics": {"val/loss": float("nan")}}),
        model_of({**INFO, "golden": [SAMPLE]}),
        model_of({**INFO, "golden": [None]}),
        *(model_of({**INFO, "golden": [SAMPLE] * count}) for count in (64, 65)),
        *(model_of({**INFO, "golden": [{**SAMPLE, key: [1]}]}) for key in ("logits", "probabilities")),
        *(model_of({**INFO, "golden": [{k: SAMPLE[k] for k in SAMPLE if k != key}]}) for key in SAMPLE),
        *(model_of({**INFO, "golden": [{**SAMPLE, "familiarity": value}]}) for value in (-2.5, 0, None, "1", [1])),
        model_of([]),
        model_of(INFO, versions=field(14, field(1, b"of another program") + field(2, b"\xff"))),
        model_of({**INFO, "input": {"size": 2048, "resize": "pad"}}),
        model_of({**INFO, "input": {"size": 2049, "resize": "pad"}}),
        model_of({**INFO, "more": "x" * 32_000_000}),
        field(7, b"") + field(14, field(1, b"classifier")),
    ]
    paths = [tmp_path / f"{number}.onnx" for number in range(len(files))]
    for path, each in zip(paths, files, strict=True):
        path.write_bytes(each)
    for path, said in zip(paths, evaluated(READ, *paths), strict=True):
        try:
            assert said == {"digest": contract.read(path)[1].digest}
        except ContractError as error:
            of_python = str(error).removeprefix(f"{path}: ")
            assert said["error"].split(" (")[0] == of_python.split(" (")[0]


def test_what_is_wrong_with_a_contract_is_said_with_what_would_be_right(tmp_path: Path) -> None:
    names = "classes must be a list of one or more distinct, non-empty strings of whole letters"
    size = "input.size must be an integer from 1 to 2,048"
    temperature = "temperature must be a finite number above 0"
    golden = (
        "golden must be a list of up to 64 samples, each with the strings name, file (base64), fingerprint and label, "
    )
    golden += "and with a finite number for each class in logits and probabilities, and as familiarity, if it has one"
    wrong: list[tuple[dict[str, Any], str]] = [
        *(({"classes": value}, names) for value in ("ab", [], ["a", 1], ["a", ""], ["a", "a"], ["a", "\ud800"])),
        *(({"input": {"size": value, "resize": "crop"}}, size) for value in (0, -8, 8.5, "8", True, None, 2049)),
        ({"input": {"size": 8, "resize": "magic"}}, "input.resize must be stretch, crop or pad"),
        *(({"temperature": value}, temperature) for value in (0, -1, "1", True, None)),
        ({"sets": {**INFO["sets"], "method": "magic"}}, "sets.method must be lac or aps"),
        *(
            ({"sets": {**INFO["sets"], key: "1"}}, f"sets.{key} must be a finite number")
            for key in ("alpha", "threshold")
        ),
        ({"unknown": {"score": None, "threshold": 1}}, "unknown.score must be a string"),
        ({"unknown": {"score": "energy", "threshold": "1"}}, "unknown.threshold must be a finite number"),
        *(({key: None}, f"{key} must be an object") for key in ("cost", "metrics", "provenance")),
        ({"digest": "0"}, "digest must be 64 hexadecimal digits"),
        *(({"golden": value}, golden) for value in (None, [None], [{**SAMPLE, "name": 1}], [{**SAMPLE, "file": "!"}])),
        *(({"golden": [{**SAMPLE, key: [0.5, "0.5"]}]}, golden) for key in ("logits", "probabilities")),
        ({"golden": [{**SAMPLE, "familiarity": "1"}]}, golden),
        ({"golden": [SAMPLE] * 65}, golden),
    ]
    paths = [tmp_path / f"{number}.onnx" for number in range(len(wrong))]
    for path, (facts, _) in zip(paths, wrong, strict=True):
        path.write_bytes(model_of({**INFO, **facts}))
    for said, (facts, right) in zip(evaluated(READ, *paths), wrong, strict=True):
        assert said == {"error": f"its contract cannot be read ({right})"}, facts


def test_no_flipped_bit_is_missed(model: Path) -> None:
    code = """
        const bytes = new Uint8Array(readFileSync(process.argv[2]));
        let missed = 0;
        for (let at = 7; at < bytes.length; at += 199) {
          bytes[at] ^= 1 << at % 8;
          missed += await js.readContract(bytes).then(() => 1, (error) => (error instanceof js.InputError ? 0 : 1));
          bytes[at] ^= 1 << at % 8;
        }
        console.log(missed);
    """
    assert evaluated(code, model) == [0]


def test_where_there_are_no_digests_a_contract_is_read_without(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model.read_bytes().replace(b"Digits", b"digits", 1))
    assert "error" in evaluated(READ, tmp_path / "m.onnx")[0]
    hidden = 'Object.defineProperty(globalThis, "crypto", { value: undefined });'
    assert "digest" in evaluated(hidden + READ, tmp_path / "m.onnx")[0]


@PACKAGES
def test_a_strict_typescript_program_knows_what_is_answered(model: Path, tmp_path: Path) -> None:
    """Real answers stand in it as literals, where a field too few or too many is an error."""
    code = f"""
        const ort = await import("{(site.JS / "node_modules/onnxruntime-web/dist/ort.node.min.mjs").as_uri()}");
        const {{ decode }} = await import("{(site.JS / "decode.mjs").as_uri()}");
        const classifier = await js.Classifier.load(readFileSync(process.argv[2]), ort);
        const picture = await decode(Buffer.from(classifier.contract.golden[0].file, "base64"));
        const [replay] = await classifier.verify(decode);
        const names = Object.fromEntries(Object.keys(js).map((name) => [name, 0]));
        const answers = [classifier.contract, await classifier.classify(picture), replay, names];
        for (const answer of answers) console.log(JSON.stringify(answer));
    """
    known, prediction, replay, names = map(json.dumps, evaluated(code, model))
    (tmp_path / "node_modules").symlink_to(site.JS / "node_modules")
    (tmp_path / "app.mts").write_text(
        f"""
        import * as ort from "onnxruntime-web/wasm";
        import * as js from "{site.JS / "classifier.mjs"}";
        import {{ decode }} from "{site.JS / "decode.mjs"}";

        export const known: js.Contract = {known};
        export const prediction: js.Prediction = {prediction};
        export const replay: js.Replay = {replay};
        export const names: Record<keyof typeof js, number> = {names};

        export async function main(file: Uint8Array, data: ImageData): Promise<string> {{
          const classifier = await js.Classifier.load(file, ort, {{ executionProviders: ["wasm"] }});
          const ok = (await classifier.verify(decode)).every((replay) => replay.ok);
          const released: Promise<void> = classifier.release();
          await released;
          const {{ label, map }} = await classifier.classify(data, {{ topK: 1 }});
          // @ts-expect-error: only of some files
          map.values;
          // @ts-expect-error: a photo is decoded before
          await classifier.classify(file);
          return ok && !(await classifier.classify(await decode(file))).unknown ? label : "";
        }}
        """
    )
    words = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    tsc = site.JS / "node_modules" / "typescript" / "bin" / "tsc"
    result = subprocess.run(["node", tsc, *words, "app.mts"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout
