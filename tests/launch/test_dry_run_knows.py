"""Every refusal of a stage is one that a dry run knows, or is listed here as one that only running can tell.

A refusal is a function that raises a UserError. One that is not listed must be seen refusing in a dry run of `CASES`.
"""

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.models import check_encoder, check_policy
from nemo_sspo.launch.checks.oracle import check_oracle
from nemo_sspo.launch.checks.prompts import check_prompts
from nemo_sspo.launch.checks.responses import check_responses
from nemo_sspo.launch.preflight import problems
from tests.json_edit import edit
from tests.launch import ready_run
from tests.launch.tiny_models import ORACLE_TENSORS, write_tensors

ROOMS = (
    *("artifacts/sources", "artifacts/json_files", "artifacts/json_text", "artifacts/text_files", "config", "encoder"),
    *("megatron/models", "megatron/observers/loggers", "oracle", "rollout", "stages/runner/importable"),
    *("stages/sampling", "tokens"),
)
PACKAGE = Path(sys.modules["nemo_sspo"].__path__[0])

ONLY_RUNNING = {
    "a number, a text or a row that an earlier step made": (
        "megatron/models/finite:refuse_not_finite",
        "megatron/models/hf_files:__getitem__",
        "megatron/models/weight_map:__getitem__",
        "megatron/models/weight_map:refuse_leftovers",
        "encoder/windows:cut",
        "rollout/tokenizer:refuse_other_tokens",
        "stages/sampling/rollout_logps:_positions",
        "stages/sampling/rollout_table:_response",
        "stages/sampling/score:refuse_not_finite",
        "stages/sampling/rollout:_shard_of",
    ),
    "what a model, an endpoint or a function of the user's answers": (
        "oracle/function:compare",
        "oracle/llm_judge:_ask",
        "oracle/llm_judge:_ask_and_keep",
        "oracle/llm_judge:_judgement",
        "oracle/llm_judge:_request",
        "oracle/llm_judge:_refuse_plan",
        "oracle/reward_model:_apply_template",
        "stages/sampling/judging:refuse_all_ties",
    ),
    "files that a judge's earlier attempts wrote": (
        "oracle/judge_journal:_record",
        "oracle/judge_ledger:_entries",
        "oracle/judge_ledger:_read",
    ),
    "what a library that the launcher lacks makes of files": (
        "artifacts/sources/records:_of_dataset",
        "encoder/sentence:_compare_with_the_library",
        "encoder/sentence:_encode_whole",
        "encoder/sentence:_encode_windows",
        "encoder/sentence:_forward_options",
        "encoder/sentence:_load",
        "encoder/sentence:encode",
        "encoder/tokenizers:hold_tokenizers",
        "encoder/weights:refuse_other_weights",
        "megatron/models/hf_files:__init__",
        "oracle/pairrm:_load_model",
        "oracle/pairrm:_read_pickle",
        "oracle/pairrm:_read_weights",
        "oracle/policy_judge:__init__",
        "oracle/reward_model:__init__",
        "oracle/reward_model_weights:_load_model",
        "rollout/tokenizer:load_policy_tokenizer",
        "rollout/vllm_engine:__init__",
        "tokens/library:_held",
        "tokens/library:load_tokenizer",
        "tokens/library:require_same",
        "tokens/own_file:__init__",
    ),
    "asked by a dry run in the environment's own interpreter": (
        "config/binding:_custom",
        "config/binding:import_function",
        "encoder/files:model_directory",
        "megatron/observers/loggers:require_loggers",
    ),
    "settings of a command that is none of a run": ("config/load:change_experiment", "config/load:describe"),
    "the GPU of the machine": ("megatron/models/precision:require_support",),
    "a problem that a dry run lists, raised by a stage at the first": (
        "artifacts/sources/models:local_model",
        "artifacts/sources/weight_files:weight_files",
        "encoder/sentence:__init__",
        "megatron/models/fields:transformer_fields",
        "megatron/models/refusals:policy_for",
        "stages/sampling/further_prompts:run",
        "stages/runner/importable:refuse_unimportable",
        "stages/sampling/prepare_prompts:_refuse_empty",
        "stages/sampling/prepare_prompts:ready",
        "stages/sampling/prepare_prompts:run",
        "stages/sampling/rollout:_engine",
        "stages/sampling/given_responses:_response",
        "stages/sampling/given_responses:take_given",
        "tokens/own_file:own_file",
    ),
}
"""``room/module:function`` by what it takes to know."""

CHECKS = (check_prompts, check_responses, check_policy, check_oracle, check_encoder)
"""Those that read files and settings; the others start interpreters."""

ANSWERS = {"prompt": "Q?", "responses": ["a", "b"]}
PROMPTS: dict[str, object] = {
    "no JSON": b"{",
    "half a character": {"prompt": "\ud800"},
    "no object": [1],
    "no prompt": {"text": "a"},
    "an empty prompt": {"prompt": ""},
    "no message": {"messages": []},
    "no text": {"prompt": "a", "system": [1]},
    "no text below an instruction": {"instruction": "a", "input": [1]},
    "no user": {"conversations": []},
    "a control token": {"prompt": "<|end|>"},
    "twice": {"prompt": "Question 1?"},
}
RESPONSES: dict[str, object] = {
    "one response": {"prompt": "Q?", "responses": ["a"]},
    "another number": {"prompt": "P?", "responses": ["a", "b", "c"]},
    "no text": {"prompt": "Q?", "responses": [1, "b"]},
    "another conversation": {"prompt": "Q?", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"},
    "another end": ANSWERS | {"finish_reasons": ["stop", "lost"]},
}
POLICY: dict[str, dict[str, object]] = {
    "a family": {"model_type": "gpt2"},
    "a field": {"num_hidden_layers": None},
    "rotary": {"rope_scaling": {"rope_type": "llama3"}},
    "rotary twice": {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "llama3", "factor": 2}},
    "experts": {"model_type": "qwen3_moe", "mlp_only_layers": 3},
    "windows": {"model_type": "qwen3", "use_sliding_window": True, "layer_types": ["full_attention"]},
}
TEMPLATES = {
    "fails": "{{ 1 / 0 }}",
    "another turn": "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|end|>' if add_generation_prompt }}",
    "no Jinja": "{% if %}",
    "endless": "{{ 'a' * 10 ** 10 }}",
}
TOKENIZERS: dict[str, dict[str, object]] = {
    "no vocabulary": {"model": []},
    "no id": {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}},
    "no rules": {"pre_tokenizer": {"type": "Nothing"}},
}
WITHOUT_LETTERS = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
TIGHT = "oracle.context_tokens=100"
FEWER_ROWS = ORACLE_TENSORS | {"pretrained_model.embeddings.word_embeddings.weight": [9, 2]}
Case = Callable[[Path], tuple[str, ...]]


def write(path: Path, content: object) -> str:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path.name


def append(path: Path, content: object) -> None:
    with path.open("ab") as file:
        file.write((content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n")


def of_prompts(content: object) -> Case:
    return removed(then=lambda place: append(place / "prompts.jsonl", content))


def of_responses(content: object) -> Case:
    def case(place: Path) -> tuple[str, ...]:
        append(place / "r.jsonl", ANSWERS | {"prompt": "P?"} if "P?" not in str(content) else ANSWERS)
        append(place / "r.jsonl", content)
        return ("rollout.source=r.jsonl",)

    return case


def of_policy(file: str, changes: dict[str, object]) -> Case:
    return removed(then=lambda place: edit(place / "policy" / file, **changes))


def of_template(text: bytes) -> Case:
    return removed(then=lambda place: (place / "policy" / "chat_template.jinja").write_bytes(text))


def of_plain_vocabulary(file: str, content: object, config: dict[str, object], **beside: bytes) -> Case:
    def case(place: Path) -> tuple[str, ...]:
        policy = place / "policy"
        (policy / "tokenizer.json").unlink()
        edit(policy / "tokenizer_config.json", **config)
        write(policy / file, content)
        for name, text in beside.items():
            (policy / f"{name}.txt").write_bytes(text)
        return ()

    return case


def removed(*names: str, then: Callable[[Path], object] = lambda place: None, overrides: tuple[str, ...] = ()) -> Case:
    """A case without some files of the ready run, and with what `then` does."""

    def case(place: Path) -> tuple[str, ...]:
        for name in names:
            (place / name).unlink()
        then(place)
        return overrides

    return case


def of_file(name: str, content: object, *overrides: str) -> Case:
    return removed(then=lambda place: write(place / name, content), overrides=overrides)


def _splits(place: Path) -> None:
    (place / "folder").mkdir()
    for split in ("test", "dev"):
        (place / "folder" / f"{split}.jsonl").write_text("")


def _endless(place: Path) -> None:
    (place / "p.jsonl").symlink_to("/dev/zero")


def _own_yaml(place: Path) -> tuple[str, ...]:
    (place / "conf" / "gate").mkdir(parents=True)
    (place / "conf" / "gate" / "mine.yaml").write_bytes(b"\xff")
    return ("gate=mine",)


def _too_large(place: Path) -> None:
    with (place / "policy" / "config.json").open("wb") as file:
        file.truncate(2**27)


def _bytes_of_no_text(place: Path) -> None:
    bounds, text = pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")
    pq.write_table(
        pa.table({"prompt": pa.Array.from_buffers(pa.string(), 1, [None, bounds, text])}), place / "p.parquet"
    )


LONG = b"\n".join(
    json.dumps({"prompt": f"Question {number}?", "responses": ["x" * 99, "b"]}).encode() for number in range(30)
)
BERT: dict[str, object] = {"tokenizer_class": "BertTokenizer"}
MERGES: dict[str, object] = {"tokenizer_class": "GPT2Tokenizer"}
CASES: dict[str, Case] = {
    **{f"prompts: {name}": of_prompts(content) for name, content in PROMPTS.items()},
    **{f"responses: {name}": of_responses(content) for name, content in RESPONSES.items()},
    **{f"policy: {name}": of_policy("config.json", changes) for name, changes in POLICY.items()},
    **{f"template: {name}": of_template(text.encode()) for name, text in TEMPLATES.items()},
    **{f"tokenizer: {name}": of_policy("tokenizer.json", changes) for name, changes in TOKENIZERS.items()},
    "template: no UTF-8": of_template(b"\xff"),
    "template: none": of_policy("tokenizer_config.json", {"chat_template": None}),
    "template: an argument": lambda place: ("+data.template_arguments.think=true",),
    "tokenizer: a row": of_policy("config.json", {"vocab_size": 10}),
    "tokenizer: a key": of_policy("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}),
    "tokenizer: no SentencePiece": removed(
        "policy/tokenizer.json", then=lambda place: (place / "policy" / "tokenizer.model").write_bytes(b"\xff\0")
    ),
    "vocabulary: a class": of_plain_vocabulary("vocab.json", {"a": 0}, {"tokenizer_class": "CTRLTokenizer"}),
    "vocabulary: no ids": of_plain_vocabulary("vocab.json", {"a": "b"}, MERGES),
    "vocabulary: no merges": of_plain_vocabulary("vocab.json", {"a": 0}, MERGES),
    "vocabulary: case": of_plain_vocabulary("vocab.txt", b"Word\n", BERT),
    "vocabulary: a setting": of_plain_vocabulary(
        "vocab.json", {"a": 0}, MERGES | {"add_prefix_space": "x"}, merges=b"#version: 0.2\n"
    ),
    "vocabulary: no unknown": of_plain_vocabulary("vocab.txt", b"word\n", BERT | {"do_lower_case": True}),
    "vocabulary: bad merges": of_plain_vocabulary("vocab.json", {"a": 0}, MERGES, merges=b"#version: 0.2\na b\n"),
    "a source: none": lambda place: ("prompts=absent.jsonl",),
    "a source: splits": removed(then=_splits, overrides=("prompts=folder",)),
    "a source: its kind": of_file("p.txt", b"", "prompts=p.txt"),
    "a source: no file": removed(then=_endless, overrides=("prompts=p.jsonl",)),
    "a source: a long line": of_file("p.jsonl", b" " * (2**26 + 1), "prompts=p.jsonl"),
    "a source: no gzip": of_file("p.jsonl.gz", b"x", "prompts=p.jsonl.gz"),
    "a source: a long list": of_file("p.json", b'[{"prompt": "a"},' + (b" " * 2**20 + b"\n") * 64, "prompts=p.json"),
    "a source: no CSV": of_file("p.csv", b'prompt\n"a', "prompts=p.csv"),
    "a source: a CSV header": of_file("p.csv", b"prompt,prompt\na,b\n", "prompts=p.csv"),
    "a source: CSV of another encoding": of_file("p.csv", b"prompt\n\xff\n", "prompts=p.csv"),
    "a source: no column": of_file("p.csv", b"text\na\n", "prompts=p.csv"),
    "a source: a column by another name": lambda place: ("data.columns.system=sys_text",),
    "a source: many fields": of_file("p.jsonl", b'{"prompt": "' + b'":' * 1_000_001 + b'"}', "prompts=p.jsonl"),
    "a source: no Parquet": of_file("p.parquet", b"x", "prompts=p.parquet"),
    "a source: no text in Parquet": removed(then=_bytes_of_no_text, overrides=("prompts=p.parquet",)),
    "labels": of_file("l.jsonl", ANSWERS, "evaluation.labelled_pairs=l.jsonl"),
    "given: none for a prompt": of_file("r.jsonl", ANSWERS, "rollout.source=r.jsonl"),
    "given: too long": of_file("r.jsonl", LONG, "rollout.source=r.jsonl", "rollout.max_response_tokens=16"),
    "weights: another set": removed(
        then=lambda place: write(place / "policy" / "model.safetensors.index.json", {"weight_map": {"a": "b"}})
    ),
    "weights: no index": removed(
        "policy/model.safetensors",
        then=lambda place: write(place / "policy" / "model.safetensors.index.json", [1]),
    ),
    "weights: no header": removed(then=lambda place: write(place / "policy" / "model.safetensors", b"x")),
    "oracle: no weights": removed("oracle/model.safetensors"),
    "oracle: others' weights": removed(
        then=lambda place: (place / "oracle" / "model.safetensors").write_bytes(
            (place / "policy" / "model.safetensors").read_bytes()
        )
    ),
    "oracle: a ranker": removed(then=lambda place: edit(place / "oracle" / "config.json", ranker_type="other")),
    "oracle: a size": removed(then=lambda place: edit(place / "oracle" / "config.json", hidden_size=None)),
    "oracle: a size of no number": removed(then=lambda place: edit(place / "oracle" / "config.json", hidden_size="2")),
    "oracle: a marker": removed(then=lambda place: edit(place / "oracle" / "config.json", cand1_prefix_id=7)),
    "oracle: a row": removed(then=lambda place: write_tensors(place / "oracle" / "model.safetensors", FEWER_ROWS)),
    "oracle: no frame": removed(then=lambda place: edit(place / "oracle" / "tokenizer.json", post_processor=None)),
    "settings: several": lambda place: ("seed=1,2",),
    "settings: no choice": lambda place: ("gate=absent",),
    "settings: no value": lambda place: ("gate",),
    "settings: no such one": lambda place: ("train.absent=1",),
    "settings: nothing behind": lambda place: ("seed=${absent}",),
    "settings: own YAML": _own_yaml,
    "policy: no JSON": of_file("policy/config.json", b"{"),
    "policy: a list": of_file("policy/config.json", [1]),
    "policy: too large": removed(then=_too_large),
    "judge: no key": lambda place: (
        "oracle=llm_judge",
        "oracle.endpoint=https://h/v1",
        "oracle.model=m",
        "oracle.api_key_variable=NO_SUCH_VARIABLE",
    ),
    "judge: no URL": lambda place: ("oracle=llm_judge", "oracle.endpoint=h", "oracle.model=m"),
    "judge: no token": removed(
        then=lambda place: edit(place / "policy" / "tokenizer.json", pre_tokenizer=None, model=WITHOUT_LETTERS),
        overrides=("oracle=policy_judge",),
    ),
    "judge: a long question": of_file(
        "t.txt", b"x" * 200 + b"{prompt}{first}{second}", "oracle=policy_judge", "oracle.template=t.txt", TIGHT
    ),
    "judge: a template": lambda place: ("oracle=policy_judge", "oracle.template=absent.txt"),
}


def refusals() -> Iterator[str]:
    """``room/module:function`` of every function that raises a UserError."""
    for room in ROOMS:
        files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").is_file() else (PACKAGE / room).rglob("*.py")
        for file in files:
            module = file.relative_to(PACKAGE).with_suffix("").as_posix()
            for function, node in _inside(ast.parse(file.read_text(encoding="utf-8")), ""):
                if isinstance(node, ast.Raise) and node.exc is not None and "UserError" in ast.dump(node.exc):
                    yield f"{module}:{function}"


def _inside(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        yield function, child
        yield from _inside(child, getattr(child, "name", function) if _is_function(child) else function)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Functions that have refused something in a dry run."""
    return set()


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_refuses(name: str, place: Path, seen: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    raised: set[str] = set()

    def recording(error: UserError, *arguments: object) -> None:
        frame = sys._getframe(1)
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            raised.add(f"{file.relative_to(PACKAGE).with_suffix('').as_posix()}:{frame.f_code.co_name}")
        Exception.__init__(error, *arguments)

    overrides = CASES[name](place)
    oracle = () if any(override.startswith("oracle=") for override in overrides) else ready_run.PAIRRM
    monkeypatch.setattr(UserError, "__init__", recording)
    try:
        found = problems(load_experiment(["experiment=quickstart", *ready_run.REST, *oracle, *overrides]), CHECKS)
    except UserError as error:
        found = [str(error)]
    assert found
    seen |= raised


def test_no_stage_refuses_what_a_dry_run_has_not_been_seen_to_refuse(seen: set[str]) -> None:
    listed = {function for functions in ONLY_RUNNING.values() for function in functions}
    every = set(refusals())
    assert listed <= every, sorted(listed - every)
    assert every - listed <= seen, sorted(every - listed - seen)
