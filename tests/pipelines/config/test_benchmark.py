import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config.benchmark import BenchmarkConfig
from pipelines.config.loading import load_config, load_data
from pipelines.config.settings import ConfigError

EXPERIMENTS = Path(__file__).parents[3] / "pipelines" / "experiments"


def complaint(path: Path, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, settings)
    return str(caught.value)


def test_every_experiment_that_comes_with_it_is_valid() -> None:
    configs = [load_config(path) for path in EXPERIMENTS.glob("*.yaml")]
    names = [config.name for config in configs]
    assert "demo" in names
    assert len(set(names)) == len(names)


def test_a_name_alone_stands_for_a_tokenizer_or_a_retriever(tiny: Path) -> None:
    config = load_config(tiny)
    assert [tokenizer.name for tokenizer in config.tokenizers] == ["rq-vae", "rq-kmeans"]
    assert [(one.kind, one.name) for one in config.retrievers] == [
        ("dual-encoder", "dual-encoder"),
        ("popularity", "popularity"),
    ]
    assert config.seeds == (0,)
    assert config.workspace == Path("workspace")


def test_shared_parameters_reach_the_tokenizers_that_know_them_and_yield_to_their_own(tiny: Path) -> None:
    setting = "tokenizers.1={recipe: rq-kmeans, params: {levels: 5}}"
    config = load_config(tiny, [setting])
    assert config.tokenizers[1].create(config.semantic_ids).codebook_sizes == (8,) * 5
    made = config.tokenizers[0].create(config.semantic_ids).params()
    assert {name: made[name] for name in config.semantic_ids} == dict(config.semantic_ids)


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("data.shop.users=70", lambda config: config.data.shop.users == 70),
        ("seeds=[1, 2]", lambda config: config.seeds == (1, 2)),
        ("tracking_uri=http://localhost:5000", lambda c: c.tracking_uri == "http://localhost:5000"),
        ("evaluation.exclude_seen=true", lambda config: config.evaluation.exclude_seen is True),
        ("tokenizers.1=lsh", lambda config: config.tokenizers[1].recipe == "lsh"),
        ("retrievers.0.params.training.steps=7", lambda c: c.retrievers[0].params["training"]["steps"] == 7),
        ("text={encoder: minilm}", lambda config: config.text.encoder == "minilm"),
        ("workspace=a=b", lambda config: config.workspace == Path("a=b")),
    ],
)
def test_settings_override_the_file(
    tiny: Path, setting: str, read: Callable[[BenchmarkConfig], bool]
) -> None:
    assert not read(load_config(tiny))
    assert read(load_config(tiny, [setting]))


@pytest.mark.parametrize("retrievers", ["[]", "[popularity]"])
def test_tokenizers_alone_need_no_reference(retrievers: str, tiny: Path) -> None:
    config = load_config(tiny, [f"retrievers={retrievers}", "evaluation.reference=lsh"])
    assert not config.retrievers_with_ids()


def test_the_advice_on_a_parameter_of_no_tokenizer_helps(tiny: Path) -> None:
    swapped = "tokenizers=[rq-kmeans, dense-id]"
    message = complaint(tiny, swapped, "evaluation.reference=rq-kmeans")
    advice = re.search(r"--set '(.*)'$", message, re.MULTILINE).group(1)
    config = load_config(tiny, [swapped, "evaluation.reference=rq-kmeans", advice])
    assert config.semantic_ids == {"levels": 2, "codebook_size": 8}


@pytest.mark.parametrize(
    "settings",
    [
        ["seeds=[1]", "seeds=[2]"],
        ["data.shop.users=70", "data={reader: amazon, shop: {users: 80}}"],
    ],
)
def test_a_setting_that_undoes_an_earlier_one_is_refused_and_both_are_named(
    tiny: Path, settings: list[str]
) -> None:
    message = complaint(tiny, *settings)
    assert message.startswith(f"--set {settings[1]} would undo --set {settings[0]} before it")


def test_a_later_setting_may_change_a_part_of_an_earlier_one(tiny: Path) -> None:
    settings = ["data={reader: amazon, shop: {users: 80}}", "data.shop.users=70", "data.shop.items=130"]
    shop = load_config(tiny, settings).data.shop
    assert shop is not None
    assert (shop.users, shop.items) == (70, 130)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("nam=x", "unknown key 'nam'. Did you mean 'name'?"),
        ("evaluation.metrik=x", "evaluation: unknown key 'metrik'. Did you mean 'metric'?"),
        ("data.shop.usrs=4", "unknown key 'usrs'. Did you mean 'users'?"),
        ("data.reader=amazn", "data: no reader is called 'amazn'. Did you mean 'amazon'?"),
        ("data.shop.items=99", "items: Input should be greater than or equal to 100"),
        ("data.shop.users=many", "users: Input should be a valid integer"),
        ("name=a/b", "name: String should match pattern"),
        ("tokenizers.1={recipe: lsh, name: a/b}", "tokenizers.1: 'a/b' is no name: it must not"),
        ("seeds=[]", "seeds: Tuple should have at least 1 item"),
        ("seeds=[1, 0, 1]", "seeds: a seed is listed twice"),
        ("tokenizers=[]", "retriever 'dual-encoder' uses semantic IDs, so list at least one tokenizer"),
        ("evaluation.metrics=[recal]", "metrics: no metric is called 'recal'. Did you mean 'recall'?"),
        ("evaluation.metrics=[ndcg, ndcg]", "metric 'ndcg' is listed twice"),
        ("text={encoder: lsa, params: {sed: 1}}", "text encoder 'lsa' has no parameter 'sed'"),
        ("tokenizers.1=rqvae", "tokenizers.1: no tokenizer is called 'rqvae'. Did you mean 'rq-vae'?"),
        ("tokenizers.1='no_such:Class'", "tokenizers.1: tokenizer 'no_such:Class' cannot be imported"),
        (
            "tokenizers.1='os:PathLike'",
            "tokenizers.1: tokenizer 'os:PathLike' cannot be used: it is not a subclass of",
        ),
        ("tokenizers.1={recipe: lsh, params: {levls: 3}}", "no parameter 'levls'. Did you mean 'levels'?"),
        (
            "tokenizers.1={recipe: lsh, params: {codebook_size: 9}}",
            "'lsh' cannot be created: codebook_size must be a power of two",
        ),
        ("semantic_ids.levels=two", "tokenizer 'rq-vae' cannot be created"),
        (
            "semantic_ids.levelz=2",
            "semantic_ids.levelz is a parameter of none of the tokenizers. Did you mean 'levels'? "
            "Or leave it out: --set 'semantic_ids={batch_size: 64, codebook_size: 8, levels: 2, steps: 20}'",
        ),
        ("tokenizers.1={recipe: lsh, name: –}", "tokenizers: '–' stands for none in tables; give it another"),
        (
            "tokenizers=[rq-vae, rq-vae]",
            "tokenizers: 'rq-vae' is listed twice; give one of them another 'name'",
        ),
        ("retrievers.0=tigre", "retrievers.0: no retriever is called 'tigre'. Did you mean 'tiger'?"),
        (
            "retrievers.0.params.widht=3",
            "retriever 'dual-encoder' has no parameter 'widht'. Did you mean 'width'?",
        ),
        ("retrievers.0.params.width=abc", "retriever 'dual-encoder' cannot have width = 'abc'"),
        ("retrievers.0.params.training.stepz=3", "no parameter 'stepz'. Did you mean 'steps'?"),
        ("retrievers.0.params.training.steps=few", "training of 'dual-encoder' cannot have steps = 'few'"),
        ("retrievers=[tiger, tiger]", "retrievers: 'tiger' is listed twice"),
        ("name=Default", "name: 'Default' is the name of MLflow's own experiment"),
        ("name=" + 101 * "x", "name: String should have at most 100 characters"),
        ("name=../up", "name: String should match pattern"),
        (f"tokenizers.1={{recipe: lsh, name: {230 * 'x'}}}", "must have 1 to 100 characters, not 230"),
        (f"retrievers.1={{kind: popularity, name: {101 * 'x'}}}", "must have 1 to 100 characters, not 101"),
        ("tokenizers.1={recipe: lsh, name: .hidden}", "'.hidden' is no name: it must not begin with a dot"),
        ("tokenizers.1={recipe: lsh, name: ' '}", "' ' is no name: take out control characters, and blanks"),
        (r'tokenizers.1={recipe: lsh, name: "a\x07b"}', r"'a\x07b' is no name: take out control characters"),
        ("evaluation.cutoffs=[5, 10, 5]", "cutoffs: 5 is listed twice"),
        ("evaluation.cutoffs=[10, 100000000]", "cutoffs.1: Input should be less than or equal to 10000"),
        ("evaluation.relevant_gain=.nan", "evaluation.relevant_gain must be a finite number"),
        ("data.shop.signal=.inf", "data.shop.signal must be a finite number"),
        ("semantic_ids.learning_rate=nan", "learning_rate = 'nan': Input should be a finite number"),
        ("data.shop.items=1000000000000", "data.shop.items: Input should be less than or equal to"),
        ("text.dimensions=1000000000", "text.dimensions: Input should be less than or equal to"),
        ("text.encoder=''", "text.encoder: String should match pattern"),
        ("text.encoder=' '", "text.encoder: String should match pattern"),
        ("tokenizers.1={codes: {file: c.csv, column: [a, a]}}", "name one column for each level, each once"),
        ("workspace=''", "workspace: the path is empty"),
        ("workspace=s3://bucket/ws", "workspace: 's3://bucket/ws' is an address"),
        ("workspace=$NOWHERE/ws", "workspace: variables are not replaced in '$NOWHERE/ws'"),
        (r'workspace="a\nb"', "holds a control character"),
        ("tracking_uri=localhost:5000", "tracking_uri: give an address that begins with http, https"),
        ("tracking_uri=mlruns", "tracking_uri: give an address that begins with http, https"),
        ("tracking_uri=sqlite:///~/mlflow.db", "tracking_uri: ~ is not replaced in an address"),
        ("tracking_uri=http://", "tracking_uri: the address names no host"),
        ("evaluation.metric=ndcg_at_11", "metric 'ndcg_at_11' is not measured. Did you mean 'ndcg_at_10'?"),
        (
            "evaluation.reference=lsh",
            "evaluation.reference 'lsh' is none of the tokenizers: rq-vae, rq-kmeans",
        ),
    ],
)
def test_a_wrong_value_is_named_with_the_file(tiny: Path, setting: str, expected: str) -> None:
    message = complaint(tiny, setting)
    assert message.startswith(f"{tiny}:\n")
    assert expected in message


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("data.users", "write key=value, for example --set data.k_core=5"),
        ("=5", "write key=value"),
        ("data..users=5", "write key=value"),
        ("tokenizers.2=lsh", "there is no place called 'tokenizers.2'"),
        ("tokenizers.first=lsh", "there is no place called 'tokenizers.first'"),
        ("name.of=x", "there is no place called 'name.of'"),
        ("tokenizers.-1=lsh", "there is no place called 'tokenizers.-1'"),
        ("tokenizers.1_0=lsh", "there is no place called 'tokenizers.1_0'"),
        ("semantic_ids={levels: 2, levels: 3}", "the key 'levels' is given twice, in line 1"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(tiny: Path, setting: str, expected: str) -> None:
    assert complaint(tiny, setting).startswith(f"--set {setting}: {expected}")


def test_a_plug_in_that_cannot_be_saved_is_refused_before_it_is_fitted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_tuples.py").write_text(
        "from semantic_ids.fitted import DenseIds\n\n\n"
        "class Mine(DenseIds):\n    def __init__(self, widths=(1, 2)):\n        self.widths = widths\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    message = complaint(tiny, "tokenizers.1='of_tuples:Mine'")
    assert "tokenizer 'Mine' cannot be created: Mine.widths, a tuple, would not survive saving" in message


def test_everything_that_is_wrong_is_said_at_once(tiny: Path) -> None:
    message = complaint(tiny, "data.shop.users=1", "tokenizers.1=rqvae", "seeds=[]")
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        "seeds",
        "data.shop.users",
        "tokenizers.1",
    ]


def test_a_tokenizer_may_be_compared_with_itself_under_another_name(tiny: Path) -> None:
    other = "{recipe: rq-vae, name: wide, params: {hidden: [32]}}"
    config = load_config(tiny, [f"tokenizers=[rq-vae, {other}]", "evaluation.reference=wide"])
    assert [tokenizer.name for tokenizer in config.tokenizers] == ["rq-vae", "wide"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty; give a YAML file"),
        ("[1, 2]", "must hold keys such as"),
        ("name: [x", "is not valid YAML"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text(text)
    assert complaint(path).startswith(f"{path} {expected}")


def test_a_key_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text("name: twice\nsemantic_ids: {levels: 3}\nseeds: [0]\nsemantic_ids: {levels: 4}\n")
    assert (
        complaint(path)
        == f"{path}: the key 'semantic_ids' is given twice, in lines 2 and 4; keep one of them"
    )


def test_a_file_in_utf_16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text("name: x\n", encoding="utf-16")
    assert complaint(path) == f"{path} is UTF-16, not UTF-8; save it as UTF-8"


def test_no_setting_may_make_python_objects(tmp_path: Path) -> None:
    path = tmp_path / "benchmark.yaml"
    path.write_text("!!python/object/apply:os.getcwd []")
    assert "the tag '!!python/object/apply:os.getcwd' is not taken" in complaint(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    assert complaint(path) == f"{path}: No such file or directory; give the path of a benchmark file"


def test_numbers_that_yaml_reads_as_text_are_numbers(tiny: Path) -> None:
    # YAML 1.1 takes 1e-3 for a string.
    settings = [
        "semantic_ids.learning_rate=1e-3",
        "retrievers=[{kind: tiger, params: {training: {learning_rate: 2e-3}}}]",
    ]
    config = load_config(tiny, settings)
    assert config.tokenizers[0].create(config.semantic_ids).params()["learning_rate"] == 0.001
    assert config.retrievers[0].create().params()["training"]["learning_rate"] == 0.002


@pytest.mark.parametrize(
    "setting",
    [
        "retrievers=[{kind: tiger, params: {training: {steps: 0}}}]",
        "retrievers=[{kind: dual-encoder, params: {width: 30, heads: 4}}]",
        "evaluation.cutoffs=[10, 0]",
        "semantic_ids.steps=abc",
        "semantic_ids.batch_size=0",
    ],
)
def test_values_that_cannot_work_are_refused_before_any_work(tiny: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        load_config(tiny, [setting])


AMAZON = "data={reader: amazon, raw: here, reviews: r.json, meta: m.json"


def test_a_reader_s_files_and_options_are_told_apart(tiny: Path) -> None:
    data = load_config(tiny, [AMAZON + ", release: 2018, k_core: 3}"]).data
    assert data.files == {"reviews": "r.json", "meta": "m.json"}
    assert (data.options["release"], data.options["k_core"]) == (2018, 3)
    unsaid = load_config(tiny, [AMAZON + "}"]).data.options
    assert unsaid["k_core"] == 5  # what the reader does of itself is written down


def test_a_corpus_of_queries_is_a_search(tiny: Path) -> None:
    assert load_config(tiny, ["data={reader: esci, shop: {users: 50}}"]).data.is_search
    assert not load_config(tiny).data.is_search


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (AMAZON + ", k_cor: 3}", "reader 'amazon' has no parameter 'k_cor'. Did you mean 'k_core'?"),
        (AMAZON + ", k_core: many}", "reader 'amazon' cannot have k_core = 'many'"),
        (AMAZON + ", release: 2017}", "reader 'amazon' cannot have release = 2017"),
        ("data={reader: amazon, raw: here}", "reader 'amazon' needs the name of its file 'reviews' in here"),
        ("data={reader: amazon, reviews: r.json}", "give raw, the folder of the files, or shop"),
        (
            AMAZON + ", shop: {users: 50}}",
            "give either raw or shop, not both; --set 'data={reader: amazon, sh",
        ),
        ("data={reader: amazon, shop: {seed: -1}}", "seed: Input should be greater than or equal to 0"),
        (
            "data={reader: 'json:loads', shop: {}}",
            "reader 'json:loads' cannot be used: it is not marked as a reader; write @reader",
        ),
        (
            "data={reader: 'os:sep', raw: here}",
            "reader 'os:sep' cannot be used: it is not marked as a reader",
        ),
        (
            "data={reader: amazon, reviews: r.json, shop: {users: 50}}",
            "a made-up shop has files of its own; leave out reviews",
        ),
        ("data={raw: here}", "data: give a reader: amazon, esci,"),
        ("data={reader: 'no_such:read', raw: here}", "reader 'no_such:read' cannot be imported"),
        (
            "retrievers.1=bm25",
            "retriever 'bm25' answers queries in words, but with amazon data the task is to predict",
        ),
        ("evaluation.relevant_gain=-1", "relevant_gain: Input should be greater than or equal to 0"),
    ],
)
def test_what_a_reader_cannot_use_is_named(tiny: Path, setting: str, expected: str) -> None:
    assert expected in complaint(tiny, setting)


def test_the_seeds_of_all_fits_of_an_ensemble_are_in_range(tiny: Path) -> None:
    ensemble = "retrievers=[popularity, sasrec, {kind: ensemble, members: [sasrec], times: 3}]"
    load_config(tiny, [ensemble, "seeds=[4294965295]"])
    message = complaint(tiny, ensemble, "seeds=[4294965296]")
    assert "the last of 3 fits of retriever 'ensemble' would have the seed 4294965296 + 2000" in message


def test_two_names_that_look_the_same_are_the_same(tiny: Path) -> None:
    message = complaint(tiny, 'tokenizers=[{recipe: lsh, name: "\u00e9"}, {recipe: lsh, name: "e\u0301"}]')
    assert "'é' is listed twice" in message


def test_baselines_alone_need_no_tokenizers(tiny: Path) -> None:
    config = load_config(tiny, ["retrievers=[popularity, item-knn]", "tokenizers=[]", "semantic_ids={}"])
    assert config.tokenizers == ()
    assert "there is nothing to compare" in complaint(tiny, "retrievers=[]", "tokenizers=[]")


def test_metrics_have_labels_in_the_order_of_tables(tiny: Path) -> None:
    config = load_config(tiny, ["evaluation.metrics=[mrr, hit_rate]", "evaluation.metric=mrr_at_10"])
    assert config.evaluation.labels() == {"mrr_at_10": "MRR@10", "hit_rate_at_10": "Hit rate@10"}


def test_a_tilde_is_the_home_folder_in_every_path(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    settings = [
        "workspace=~/runs",
        "data={reader: amazon, raw: ~/raw, reviews: ~/r.json, meta: m.json}",
        "text.encoder=~/model",
        "tokenizers.1={codes: {file: ~/codes.csv}}",
    ]
    config = load_config(tiny, settings)
    assert config.workspace == Path("/home/ada/runs")
    assert config.data.raw == Path("/home/ada/raw")
    assert config.data.files == {"reviews": "/home/ada/r.json", "meta": "m.json"}
    assert config.text.encoder == "/home/ada/model"
    codes = config.tokenizers[1].codes
    assert codes is not None
    assert codes.file == Path("/home/ada/codes.csv")


def test_a_folder_whose_name_looks_like_a_variable_can_be_used_once_it_is_there(
    tiny: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "$x"
    assert "variables are not replaced" in complaint(tiny, f"workspace={folder}")
    folder.mkdir()
    assert load_config(tiny, [f"workspace={folder}"]).workspace == folder


def test_a_password_in_the_tracking_address_is_used_but_never_dumped(tiny: Path) -> None:
    uri = "http://alice:hunter2@example.org:5000"
    config = load_config(tiny, [f"tracking_uri={uri}"])
    assert config.tracking_uri == uri
    assert config.model_dump()["tracking_uri"] == "http://***@example.org:5000"
    assert "hunter2" not in config.model_dump_json() + repr(config) + str(config)


def test_a_password_with_a_slash_is_refused_and_not_repeated(tiny: Path) -> None:
    message = complaint(tiny, "tracking_uri=http://alice:hun/ter2@example.org")
    assert "in a password write / as %2F" in message
    assert "ter2" not in message


@pytest.mark.parametrize(
    ("setting", "place"),
    [
        ("text.params={token: hunter2}", "text.params.token"),
        ("text.params={model_kwargs: {api-key: hunter2}}", "text.params.model_kwargs.api-key"),
        ("retrievers.1={kind: popularity, params: {hf_token: hunter2}}", "retrievers.1.params.hf_token"),
        ("semantic_ids.password=hunter2", "semantic_ids.password"),
        ("data={reader: amazon, raw: 'ftp://ada:hunter2@host/x'}", "data.raw"),
        ("data={reader: amazon, raw: 'x?access_key=hunter2'}", "data.raw"),
    ],
)
def test_secrets_anywhere_else_are_refused_and_not_repeated(tiny: Path, setting: str, place: str) -> None:
    message = complaint(tiny, setting)
    assert f"{place} holds a secret, which would be kept with the results" in message
    assert "HF_TOKEN" in message
    assert "hunter2" not in message


def test_plug_ins_are_named_before_their_code_runs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loud_plug_in.py").write_text(
        "import sys\nfrom semantic_ids.fitted import DenseIds\n\nprint('imported', file=sys.stderr)\n\n\n"
        "class Mine(DenseIds):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    load_config(tiny)
    assert capsys.readouterr().err == ""
    load_config(tiny, ["tokenizers.1='loud_plug_in:Mine'"])
    assert capsys.readouterr().err.splitlines() == [
        f"Plug-ins: {tiny} runs the code of loud_plug_in",
        "imported",
    ]


def test_data_alone_loads_no_code_but_that_of_its_reader(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_loaded.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    named = "'never_loaded:It'"
    data = load_data(tiny, [f"tokenizers=[{named}]", f"retrievers=[{named}]", f"text.encoder={named}"])
    assert data.reader == "amazon"
    with pytest.raises(SystemExit, match="it ran"):
        load_data(tiny, [f"data.reader={named}"])
