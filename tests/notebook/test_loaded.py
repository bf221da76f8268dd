import io
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import mmjax
from mmjax.core.errors import UserError
from mmjax.core.trees import map_with_path
from mmjax.core.types import Stream
from mmjax.data.datasets import built
from mmjax.data.datasets.openmoji import OpenMojiSource
from mmjax.encoders.image import ImageEncoder
from mmjax.notebook import attention
from mmjax.notebook.loaded import load
from mmjax.notebook.report import retrieval_report
from mmjax.training.integrity import MANIFEST
from tests.devices import run_on_devices


@pytest.fixture(scope="module")
def run(trained):
    return load(trained[0])


@pytest.fixture(scope="module")
def records():
    source = OpenMojiSource("test")
    return [source.read(i) for i in range(40)]


@pytest.fixture(scope="module")
def pictures(records):
    return [Image.open(io.BytesIO(record["image"])) for record in records]


def test_mmjax_load_is_load():
    assert mmjax.load is load


def test_needs_no_training_data(trained, monkeypatch):
    monkeypatch.setattr(built, "built", lambda *_: pytest.fail("the data set was opened"))
    assert load(trained[0]).encode_text("a cat").shape == (1, 64)


def test_embeds_as_training_does(run, records):
    """Through Pillow, strings and padding: the embeddings of the training code's own transforms, within 1e-6."""
    image, text = run.transform("image"), run.transform("text")
    streams = {
        "image": image.collate([image.prepare(record, None) for record in records]),
        "text": text.collate([text.prepare(record, None) for record in records]),
    }
    expected = jax.jit(run.model.apply)({"params": run.params}, streams).embeddings
    found = {
        "image": run.encode_image([Image.open(io.BytesIO(record["image"])) for record in records]),
        "text": run.encode_text([record["caption"][0] for record in records]),
    }
    for name, embeddings in found.items():
        assert embeddings.dtype == np.float32 and embeddings.shape == (40, 64)
        np.testing.assert_allclose(embeddings, expected[name], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)


def test_every_form_of_a_picture_embeds_the_same(run, pictures, records, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(records[0]["image"])
    rgb = np.asarray(pictures[0].convert("RGB"))
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    forms = [pictures[0], rgb, opaque, path, str(path), records[0]["image"]]
    together = run.encode_image(forms)
    np.testing.assert_allclose(together, np.repeat(together[:1], len(forms), axis=0), atol=1e-6)
    for alone in (rgb, str(path), pictures[0]):
        np.testing.assert_allclose(run.encode_image(alone), together[:1], atol=1e-6)
    np.testing.assert_allclose(run.encode_image(np.stack([rgb, rgb])), together[:2], atol=1e-6)


def test_picture_is_turned_as_its_exif_says(run, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    opened = run.encode_image(Image.open(tmp_path / "turned.png"))
    np.testing.assert_allclose(opened, run.encode_image(tmp_path / "turned.png"), atol=1e-6)
    np.testing.assert_allclose(opened, run.encode_image(picture.rotate(-90, expand=True)), atol=1e-6)


def test_compiles_once_a_modality(trained, pictures):
    run = load(trained[0], batch_size=8)
    for size in (1, 5, 8, 20):
        assert len(run.encode_image(iter(pictures[:size]))) == size
    assert run._embed._cache_size() == 1


def test_similarity_and_search_agree(run, pictures, records):
    names = [record["caption"][0] for record in records[:3]]
    matrix = run.similarity(pictures, names)
    scores, found = run.search(names, run.encode_image(pictures), k=5)
    assert matrix.shape == (40, 3) and found.shape == (3, 5)
    np.testing.assert_allclose(scores, -np.sort(-matrix.T, axis=1)[:, :5], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(matrix.T, found, axis=1), scores, atol=1e-6)


def test_steps(trained):
    metric = "retrieval/mean_recall_at_1"
    logged = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    scores = {record["step"]: record[metric] for record in logged if metric in record}
    assert load(trained[0]).step == 4
    assert load(trained[0], step=2).step == 2
    assert scores[load(trained[0], step="best").step] == max(scores.values())
    newest, older = load(trained[0]).encode_text("cat"), load(trained[0], step=2).encode_text("cat")
    assert np.abs(newest - older).max() > 1e-4


@pytest.mark.parametrize(
    ("path", "step", "sentence"),
    [
        ("nowhere", None, "does not exist"),
        ("..", None, "has no folder 'checkpoints'. Runs in it: smoke"),
        ("checkpoints", None, "name the run's own folder"),
        ("checkpoints/4", None, "name the run's own folder, .* with step=4"),
        (".", 3, "no checkpoint of step 3"),
        (".", "first", "must be a number, 'best'"),
    ],
)
def test_what_is_no_run_is_said(trained, path, step, sentence):
    with pytest.raises(UserError, match=sentence):
        load((trained[0] / path).resolve(), step=step)


def test_config_of_another_package_is_not_imported(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    for meta in (tmp_path / "run" / "checkpoints").rglob("meta/metadata"):
        meta.write_text(meta.read_text().replace("mmjax.encoders.image", "antigravity"))
        (meta.parents[1] / MANIFEST).unlink()  # who means harm takes the checksums away
    with pytest.raises(UserError, match="outside the allowed packages"):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("image", [], "nothing to encode"),
        ("image", 3, "got a int"),
        ("image", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3))], "input 1 .* float64 is no picture"),
        ("image", [np.zeros((4, 4, 2), np.uint8)], "shape \\(4, 4, 2\\)"),
        ("image", ["no/such/file.png"], "input 0"),
        ("image", [b"no picture"], "input 0"),
        ("image", [{"a": 1}], "a dict is no picture"),
        ("text", ["cat", "  "], "input 1 .* visible"),
        ("text", [7], "input 0"),
        ("txt", ["cat"], "has no modality 'txt'. Did you mean 'text'"),
    ],
)
def test_what_cannot_be_encoded_is_said(run, name, values, sentence):
    with pytest.raises(UserError, match=sentence):
        run.encode(name, values)


def test_attention_is_that_of_the_first_layers_queries_and_keys(run, pictures):
    weights = run.attention_weights(pictures[:3])
    assert [layer.shape for layer in weights] == [(3, 2, 16, 16)] * 2
    np.testing.assert_allclose(np.stack(weights).sum(-1), 1, atol=1e-5)
    maps = run.attention(pictures[1])
    assert maps.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(maps.reshape(2, 2, 16), np.stack(weights)[:, 1].mean(axis=-2), atol=1e-6)


def test_unrolled_layers_are_in_order():
    """block_10 comes after block_2, and attention pooling, whose one query is no token, last."""

    def stored(value, queries=4):
        return {"attention": {"attention": (np.full((1, 2, queries, 4), value),)}}

    blocks = {f"block_{i}": stored(i) for i in (10, 2, 11, 0, 9, 1)}
    layers = attention.by_layer({"a_pool": stored(99, queries=1), "transformer": blocks})
    assert [layer.max() for layer in layers] == [0, 1, 2, 9, 10, 11, 99]


@pytest.mark.parametrize(("pool", "scan"), [("first", True), ("attention", False)])
def test_attention_maps_of_an_encoder(pool, scan):
    """Zero queries in the last of three layers: its attention is uniform, that of the others is not."""
    encoder = ImageEncoder(patch_size=4, width=8, depth=3, num_heads=2, mlp_dim=8, pool=pool, scan=scan)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    stream = Stream(pixels, np.ones((1, 1), bool))
    params = jax.jit(encoder.init)(jax.random.key(0), stream)["params"]
    params["transformer"] = map_with_path(_without_last_queries, params["transformer"])
    attend = jax.jit(lambda params: encoder.apply({"params": params}, stream, mutable=["intermediates"])[1])
    layers = attention.by_layer(attend(params))
    assert [np.ptp(layer, axis=-1).max() < 1e-6 for layer in layers[:3]] == [False, False, True]
    maps = [attention.to_map(layer[0]) for layer in layers]
    assert [weights.shape for weights in maps] == [(2, 2, 2)] * (4 if pool == "attention" else 3)
    last = layers[-1][0, :, 0]  # of the class token, or of the one query of the pooling: [H, 4 or 5]
    np.testing.assert_array_equal(maps[-1].reshape(2, 4), last[:, -4:])


def _without_last_queries(path, leaf):
    """Zero where a query's weights are those of layer 2."""
    if "/query/" not in path:
        return leaf
    return leaf.at[2].set(0) if path.startswith("blocks/") else leaf * (not path.startswith("block_2/"))


def test_tokens_that_are_no_square_have_no_map():
    with pytest.raises(UserError, match="7 tokens are no square grid"):
        attention.to_map(np.ones((2, 7, 7)))


def test_evaluate_gives_what_training_gave(run, trained):
    assert run.evaluate() == pytest.approx(trained[1], abs=1e-12)


def test_evaluate_on_other_data_counts_every_caption(run, tmp_path, records):
    rows = []
    for i, record in enumerate(records[:12]):
        (tmp_path / f"{i}.png").write_bytes(record["image"])
        rows.append({"image": f"{i}.png", "caption": [record["caption"][0], f"number {i}"], "label": "ab"[i % 2]})
    manifest = tmp_path / "data.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run.evaluate(str(manifest), train_data=str(manifest))
    both = run.encode_text([text for row in rows for text in row["caption"]])
    scores = both @ run.encode_image([tmp_path / row["image"] for row in rows]).T  # [24, 12]
    own = scores[np.arange(24), np.repeat(np.arange(12), 2)]
    assert found["retrieval/text_to_image/recall_at_1"] == pytest.approx(np.mean(own >= scores.max(axis=1) - 1e-7))
    assert 0 <= found["zeroshot/top_1"] <= 1 and found["probe/knn/top_1"] <= 1
    assert found["probe/linear/top_1"] > 0.5


def test_classes_that_are_ids_need_names(run, tmp_path, records):
    for i, record in enumerate(records[:4]):
        (tmp_path / f"{i}.png").write_bytes(record["image"])
    rows = "".join(f"{i}.png,n0000000{i % 2}\n" for i in range(4))
    (tmp_path / "data.csv").write_text(f"image,label\n{rows}")
    data = str(tmp_path / "data.csv")
    with pytest.raises(UserError, match=r"numbers or WordNet ids, .* --class-names FILE"):
        run.evaluate(data)
    (tmp_path / "names.txt").write_text("\n".join(record["caption"][0] for record in records[:2]))
    (tmp_path / "prompts.txt").write_text("{}\nthe {}\n")
    found = run.evaluate(data, class_names=str(tmp_path / "names.txt"), templates=str(tmp_path / "prompts.txt"))
    assert 0 <= found["zeroshot/top_1"] <= 1
    (tmp_path / "names.txt").write_text("cat")
    with pytest.raises(UserError, match=r"has 2 classes \(n00000000, n00000001\), and 1 names were given \(cat\)"):
        run.evaluate(data, class_names=str(tmp_path / "names.txt"))


def test_data_without_captions_or_labels_is_said(run, tmp_path, records):
    (tmp_path / "a.png").write_bytes(records[0]["image"])
    (tmp_path / "data.csv").write_text("image,size\na.png,3\n")
    with pytest.raises(UserError, match=r"no column 'caption' .* or 'label'"):
        run.evaluate(str(tmp_path / "data.csv"))


def test_report_draws_the_runs_evaluation(trained):
    (path,) = retrieval_report(trained[0])
    assert path == pathlib.Path(trained[0]) / "retrieval.png"
    with Image.open(path) as picture:
        assert min(picture.size) > 500 and len(np.unique(np.asarray(picture))) > 50


@pytest.mark.slow
def test_on_eight_devices_as_on_one(run, trained):
    """Batch over data x fsdp, weights over fsdp x tensor: the embeddings of one device within 2e-6."""
    texts = ["cat", "red apple", "moon"]
    found = run_on_devices(f"""
        import json
        from mmjax.core.mesh import MeshShape, make_mesh
        from mmjax.notebook.loaded import load

        run = load({str(trained[0])!r}, mesh=make_mesh(MeshShape(data=2, fsdp=2, tensor=2)))
        assert run.batch_size == 32 and run.mesh.size == 8
        kernel = run.params["encoders_text"]["transformer"]["blocks"]["mlp"]["up"]["kernel"]
        assert kernel.addressable_shards[0].data.size * 4 == kernel.size
        print(json.dumps(run.encode_text({texts!r}).tolist()))
    """)
    np.testing.assert_allclose(json.loads(found.splitlines()[-1]), run.encode_text(texts), atol=2e-6)
