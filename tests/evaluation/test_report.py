"""The results table: where each metric lands and how it is written."""

from mmjax.evaluation.report import results_table, results_text

RETRIEVAL = {
    "image_to_text/recall_at_1": 0.6158,
    "image_to_text/median_rank": 1.0,
    "text_to_image/recall_at_1": 0.6,
    "text_to_image/median_rank": 2.5,
    "mean_recall_at_1": 0.6079,
}


def test_retrieval_has_a_row_each_way_and_their_mean():
    lines = results_text(RETRIEVAL, title="Held-out").splitlines()
    rows = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]
    assert rows[0] == ["Held-out"]
    assert ["R@1", "median rank"] in rows
    assert ["image → text", "61.6 %", "1.0"] in rows
    assert ["text → image", "60.0 %", "2.5"] in rows
    assert ["mean", "60.8 %"] in rows


def test_a_prefix_of_all_names_is_left_out():
    prefixed = {f"test/retrieval/{name}": value for name, value in RETRIEVAL.items()}
    assert results_text(prefixed) == results_text(RETRIEVAL)


def test_the_only_row_keeps_its_name():
    assert "knn" in results_text({"knn/top_1": 0.5, "knn/top_5": 0.75})
    assert "knn" in results_text({"knn/top_1": 0.5})


def test_other_metrics_keep_their_names():
    text = results_text({"zeroshot/top_5": 0.5, "zeroshot/mean_per_class": 0.25, "loss": 1.23456})
    for cell in ("top-5", "50.0 %", "mean per class", "25.0 %", "loss", "1.235"):
        assert cell in text


def test_a_long_title_is_whole_and_a_notebook_shows_the_table():
    title = f"runs/{'long' * 30}, step 7"
    assert title in results_text(RETRIEVAL, title, width=80).replace("\n", "")
    assert "text/html" in results_table(RETRIEVAL)._repr_mimebundle_((), ())
    assert results_text({}) == "Results"


def test_several_evaluations_are_a_table_each_within_80_columns():
    metrics = {f"retrieval/{name}": value for name, value in RETRIEVAL.items()}
    metrics |= {"zeroshot/top_1": 0.5, "zeroshot/top_5": 0.9, "zeroshot/mean_per_class": 0.49}
    metrics |= {"probe/linear/top_1": 0.7, "probe/linear/validation_top_1": 0.72, "probe/knn/top_1": 0.6, "loss": 1.5}
    lines = results_text(metrics, title="run", width=80).splitlines()
    rows = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines if line.strip()]
    assert rows[0] == ["run"] and max(map(len, lines)) <= 80
    for row in (
        *(["retrieval", "R@1", "median rank"], ["image → text", "61.6 %", "1.0"], ["mean", "60.8 %"]),
        *(["zeroshot", "top-1", "top-5", "mean per class"], ["50.0 %", "90.0 %", "49.0 %"]),
        *(["probe", "top-1", "validation top-1"], ["linear", "70.0 %", "72.0 %"], ["knn", "60.0 %"], ["1.5"]),
    ):
        assert row in rows, row
